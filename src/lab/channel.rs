//! The host's ends of the channels: one thread each turns bytes into messages.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Duration;

use super::marker::{Piece, Splitter};

/// Which of a job's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What the outer machine or QEMU says.
#[derive(Debug)]
pub(super) enum Message {
    /// The outer machine's init is ready to run jobs.
    Up,
    /// A sign of life.
    Alive,
    Start(usize),
    /// Job, its exit status as the shell reports it (128 + n for signal n), and how long it ran by the outer machine's clock: on a busy
    /// host this thread may see start and end at once.
    End(usize, i32, Duration),
    /// All jobs are done.
    Bye,
    /// The outer machine's init could not do something.
    Fail(String),
    /// Output of the running job.
    Output(Stream, Vec<u8>),
    /// The stream has given all the job's output.
    Drained(Stream, usize),
    /// The trace of a job is on the host, if it made one.
    Traced(usize),
    /// The run directory of a job is on the host.
    Brought(usize),
    /// It could not be written.
    NotBrought(PathBuf, String),
    /// A line of the outer kernel's console or of QEMU's own complaints.
    Console(String),
    /// A channel is closed: QEMU has ended or will at once.
    Closed,
}

/// Largest run directory accepted, bytes. The jobs' files are ours, but what they hold comes from a guest.
const LARGEST_TAR: u64 = 4 << 30;

/// Reads lines such as `end 0 3` from the control port.
pub(super) fn control(port: impl Read + Send + 'static, to: SyncSender<Message>) -> io::Result<()> {
    reader("lab-control", move || {
        for line in BufReader::new(port).split(b'\n').map_while(Result::ok) {
            if let Some(message) = parse(&String::from_utf8_lossy(&line))
                && to.send(message).is_err()
            {
                return;
            }
        }
        let _ = to.send(Message::Closed);
    })
}

fn parse(line: &str) -> Option<Message> {
    let (word, rest) = line.trim_end().split_once(' ').unwrap_or_else(|| (line.trim_end(), ""));
    Some(match word {
        "up" => Message::Up,
        "alive" => Message::Alive,
        "bye" => Message::Bye,
        "start" => Message::Start(rest.parse().ok()?),
        "end" => {
            let mut words = rest.split(' ');
            let (job, code) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            let (begun, ended): (f64, f64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            Message::End(job, code, Duration::try_from_secs_f64(ended - begun).ok()?)
        }
        "fail" => Message::Fail(rest.to_owned()),
        _ => return None,
    })
}

/// Passes a job's output on as it comes.
pub(super) fn output(mut port: impl Read + Send + 'static, stream: Stream, marker: &str, to: SyncSender<Message>) -> io::Result<()> {
    let mut splitter = Splitter::new(marker);
    reader("lab-output", move || {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let n = match port.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(n) => n,
            };
            for piece in splitter.push(buffer.get(..n).unwrap_or_default()) {
                let message = match piece {
                    Piece::Bytes(bytes) => Message::Output(stream, bytes),
                    Piece::End(job) => Message::Drained(stream, job),
                };
                if to.send(message).is_err() {
                    return;
                }
            }
        }
        let _ = to.send(Message::Output(stream, splitter.finish()));
    })
}

/// Writes the jobs' traces to files as they come. One that cannot be written any more is taken all the same: the job must not wait.
pub(super) fn traces(
    mut port: impl Read + Send + 'static,
    marker: &str,
    paths: Vec<Option<PathBuf>>,
    to: SyncSender<Message>,
) -> io::Result<()> {
    let mut splitter = Splitter::new(marker);
    reader("lab-traces", move || {
        let mut buffer = vec![0; 64 << 10];
        let mut job = 0;
        let mut file = None;
        let mut begun = false;
        loop {
            let n = match port.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(n) => n,
            };
            for piece in splitter.push(buffer.get(..n).unwrap_or_default()) {
                match piece {
                    Piece::Bytes(bytes) => {
                        let path = paths.get(job).and_then(Option::as_ref).filter(|_| !begun);
                        begun = true;
                        if let Some(path) = path {
                            file = create(path, &to);
                        }
                        let written = file.as_mut().map(|file: &mut File| file.write_all(&bytes));
                        if let Some(Err(error)) = written {
                            complain(&to, &error);
                            file = None;
                        }
                    }
                    Piece::End(ended) => {
                        (job, file, begun) = (ended + 1, None, false);
                        if to.send(Message::Traced(ended)).is_err() {
                            return;
                        }
                    }
                }
            }
        }
    })
}

fn create(path: &Path, to: &SyncSender<Message>) -> Option<File> {
    let file = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| File::create(path));
    file.inspect_err(|error| complain(to, error)).ok()
}

fn complain(to: &SyncSender<Message>, error: &io::Error) {
    let text = format!("dmavet: warning: the trace cannot be written and is not whole: {error}\n");
    let _ = to.send(Message::Output(Stream::Stderr, text.into_bytes()));
}

/// Unpacks the run directories: a line `JOB LENGTH`, then that many bytes of tar.
pub(super) fn files(port: impl Read + Send + 'static, directories: Vec<PathBuf>, to: SyncSender<Message>) -> io::Result<()> {
    reader("lab-files", move || {
        let mut port = BufReader::with_capacity(64 << 10, port);
        loop {
            let mut line = String::new();
            if !matches!((&mut port).take(64).read_line(&mut line), Ok(n) if n > 0) {
                return;
            }
            let header = line.trim_end().split_once(' ').and_then(|(j, l)| Some((j.parse::<usize>().ok()?, l.parse::<u64>().ok()?)));
            let Some((job, length)) = header else { return };
            let Some(directory) = directories.get(job) else { return };
            let message = match unpack(&mut (&mut port).take(length), length, directory) {
                Ok(()) => Message::Brought(job),
                Err(e) => Message::NotBrought(directory.clone(), e.to_string()),
            };
            if to.send(message).is_err() {
                return;
            }
        }
    })
}

/// `length` 0: the outer machine could not pack it, which it says on the control port.
fn unpack(tar: &mut impl Read, length: u64, directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let result = if length > LARGEST_TAR {
        Err(io::Error::other(format!("{length} bytes, at most {LARGEST_TAR} are accepted")))
    } else {
        let mut archive = tar::Archive::new(&mut *tar);
        archive.set_preserve_permissions(false);
        archive.set_preserve_mtime(false);
        archive.unpack(directory)
    };
    // The next header follows whatever became of this one.
    io::copy(tar, &mut io::sink())?;
    result
}

/// The console or QEMU's stderr, line by line.
pub(super) fn console(source: impl Read + Send + 'static, to: SyncSender<Message>) -> io::Result<()> {
    reader("lab-console", move || {
        for line in BufReader::new(source).split(b'\n').map_while(Result::ok) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if !text.is_empty() && to.send(Message::Console(text)).is_err() {
                return;
            }
        }
    })
}

/// The threads end by themselves when QEMU is gone or nobody listens any more.
fn reader(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.into()).spawn(body).map(drop)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, contents) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(contents.len() as u64);
            header.set_mode(0o644);
            // Names a sane writer refuses must be writable here.
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            builder.append(&header, *contents).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn bring(stream: Vec<u8>, directories: Vec<PathBuf>) -> Vec<Message> {
        let (to, from) = mpsc::sync_channel(16);
        files(io::Cursor::new(stream), directories, to).unwrap();
        std::iter::from_fn(|| from.recv_timeout(Duration::from_secs(10)).ok()).collect()
    }

    #[test]
    fn two_run_directories_arrive_one_behind_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let mut stream = Vec::new();
        for job in 0..2 {
            let tar = tar_of(&[("./sub/findings.json", b"{}")]);
            stream.extend(format!("{job} {}\n", tar.len()).bytes());
            stream.extend(tar);
        }
        let messages = bring(stream, vec![dir.path().join("a"), dir.path().join("b")]);
        assert!(matches!(messages[..], [Message::Brought(0), Message::Brought(1)]), "{messages:?}");
        assert_eq!(std::fs::read(dir.path().join("b/sub/findings.json")).unwrap(), b"{}");
    }

    #[test]
    fn each_trace_goes_to_its_own_file() {
        let dir = tempfile::tempdir().unwrap();
        let (to, from) = mpsc::sync_channel(16);
        let stream = b"one\x01m:0\n\x01m:1\ntwo\x01m:2\nrest".to_vec();
        let paths = ["a", "b", "c", "d"].map(|name| Some(dir.path().join(name))).to_vec();
        traces(io::Cursor::new(stream), "\x01m:", paths, to).unwrap();
        let ended: Vec<_> = from.iter().map(|m| if let Message::Traced(job) = m { job } else { panic!("{m:?}") }).collect();
        assert_eq!(ended, [0, 1, 2]);
        let read = |name| std::fs::read(dir.path().join(name)).ok();
        assert_eq!(read("a").unwrap(), b"one");
        assert_eq!((read("b"), read("c").unwrap()), (None, b"two".to_vec()));
        assert_eq!(read("d").unwrap(), b"rest", "what a killed machine leaves is kept");
    }

    #[test]
    fn nothing_is_written_outside_the_run_directory() {
        let dir = tempfile::tempdir().unwrap();
        let tar = tar_of(&[("../escaped", b"x"), ("/tmp/dmavet-escaped-absolute", b"x")]);
        let stream = [format!("0 {}\n", tar.len()).into_bytes(), tar].concat();
        bring(stream, vec![dir.path().join("run")]);
        assert!(!dir.path().join("escaped").exists());
        assert!(!Path::new("/tmp/dmavet-escaped-absolute").exists());
    }

    #[test]
    fn a_damaged_directory_is_reported_and_the_next_one_still_comes() {
        let dir = tempfile::tempdir().unwrap();
        let good = tar_of(&[("f", b"1")]);
        let mut stream = b"0 600\n".to_vec();
        stream.extend(vec![b'x'; 600]);
        stream.extend(format!("1 {}\n", good.len()).bytes());
        stream.extend(good);
        let messages = bring(stream, vec![dir.path().join("a"), dir.path().join("b")]);
        assert!(matches!(messages[..], [Message::NotBrought(..), Message::Brought(1)]), "{messages:?}");
    }

    #[test]
    fn control_lines_are_read_and_others_ignored() {
        assert!(matches!(parse("end 2 137 4.50 6.75"), Some(Message::End(2, 137, t)) if t == Duration::from_millis(2250)));
        assert!(matches!(parse("start 1\r"), Some(Message::Start(1))));
        assert!(matches!(parse("fail no space left"), Some(Message::Fail(t)) if t == "no space left"));
        for bad in ["", "end", "end 1 0", "end x 1 0 0", "end 1 0 9 1", "end 1 0 nan inf", "start -1", "noise"] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
