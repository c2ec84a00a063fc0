//! Which mirror and which keys: the machine's own configuration if it is a Debian, the public one otherwise.

use std::path::Path;
use std::process::Command;

use super::{AptError, Tools, run};

/// Where the archive's signing keys lie; the second name is the newer packaging's.
const KEYRINGS: [&str; 2] = ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];

/// The archive's own front address, for machines that are not Debian but have apt and Debian's keys.
const PUBLIC: &str = "http://deb.debian.org/debian";
const PUBLIC_SECURITY: &str = "http://deb.debian.org/debian-security";

/// Addresses of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The main archive.
    pub main: String,
    /// The security archive; `None` when the machine's configuration names none (a private mirror).
    pub security: Option<String>,
    keyring: String,
}

impl Mirror {
    /// Reads the machine's configuration.
    ///
    /// # Errors
    /// No apt, or Debian's keys are not installed.
    pub(super) fn of_this_machine(tools: &Tools) -> Result<Self, AptError> {
        let mut command = Command::new(&tools.apt_get);
        command.args(["indextargets", "--format", "$(ORIGIN)|$(REPO_URI)", "Created-By: Packages"]).env("LC_ALL", "C");
        // A configuration apt cannot read is the machine's trouble, not ours: go on with the public address.
        let listing = run(&mut command, &tools.apt_get, Path::new("/"))?.unwrap_or_default();
        let keyring = KEYRINGS
            .into_iter()
            .find(|path| Path::new(path).exists())
            .ok_or_else(|| AptError::NoKeyring { tried: KEYRINGS.join(" or ") })?;
        Ok(Self::from_listing(&listing, keyring))
    }

    /// `listing`: lines of `origin|address`, the origin unexpanded or empty when apt has no lists yet.
    fn from_listing(listing: &str, keyring: &str) -> Self {
        let addresses: Vec<&str> = listing
            .lines()
            .filter_map(|line| line.split_once('|'))
            .filter(|(origin, _)| matches!(*origin, "Debian" | "" | "$(ORIGIN)"))
            .map(|(_, address)| address.trim_end_matches('/'))
            .filter(|address| address.starts_with("http://") || address.starts_with("https://"))
            .collect();
        let ending = |end: &str| addresses.iter().find(|a| a.ends_with(end) || a.contains(&format!("{end}/"))).map(|a| (*a).to_owned());
        let main = ending("/debian");
        let security = ending("/debian-security").or_else(|| main.is_none().then(|| PUBLIC_SECURITY.to_owned()));
        Self { main: main.unwrap_or_else(|| PUBLIC.into()), security, keyring: keyring.into() }
    }

    /// The private sources file for a suite. `sid` and backports have no security suite.
    pub(super) fn sources(&self, suite: &str) -> String {
        let line = |address: &str, suite: &str| format!("deb [arch=amd64 signed-by={}] {address} {suite} main\n", self.keyring);
        let mut text = line(&self.main, suite);
        if let Some(security) = self.security.as_ref().filter(|_| suite != "sid" && !suite.ends_with("-backports")) {
            text.push_str(&line(security, &format!("{suite}-security")));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_own_mirror_is_used() {
        let listing = "Debian|http://mirror.example/debian/\nDebian|http://mirror.example/debian-security/\n|https://other.example/apt/\n";
        let mirror = Mirror::from_listing(listing, "/k.gpg");
        assert_eq!(mirror.main, "http://mirror.example/debian");
        assert_eq!(mirror.security.as_deref(), Some("http://mirror.example/debian-security"));
        assert_eq!(
            mirror.sources("trixie"),
            "deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian trixie main\n\
             deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian-security trixie-security main\n"
        );
        assert_eq!(mirror.sources("sid").lines().count(), 1);
        assert_eq!(mirror.sources("bookworm-backports").lines().count(), 1);
    }

    #[test]
    fn a_snapshot_address_keeps_its_date() {
        let mirror = Mirror::from_listing("Debian|https://snapshot.example/archive/debian/20250520T000000Z/\n", "/k");
        assert_eq!(mirror.main, "https://snapshot.example/archive/debian/20250520T000000Z");
        assert_eq!(mirror.security, None);
    }

    #[test]
    fn lists_never_read_still_give_the_address() {
        assert_eq!(Mirror::from_listing("$(ORIGIN)|http://m.example/debian/\n", "/k").main, "http://m.example/debian");
    }

    #[test]
    fn another_distribution_gets_the_public_archive() {
        let mirror = Mirror::from_listing("Ubuntu|http://archive.example/ubuntu/\n", "/k");
        assert_eq!((mirror.main.as_str(), mirror.security.as_deref()), (PUBLIC, Some(PUBLIC_SECURITY)));
    }
}
