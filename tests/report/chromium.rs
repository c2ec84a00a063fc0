//! Drives a headless Chromium over its DevTools protocol, on a pipe (<https://chromedevtools.github.io/devtools-protocol/>).

use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The longest anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one page.
pub struct Chromium {
    child: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    number: u64,
    session: Option<String>,
    /// What the page had to complain about, and what it asked the network for.
    pub complaints: Vec<String>,
    loaded: bool,
    home: TempDir,
}

impl Chromium {
    /// Starts it with an empty page.
    pub fn start() -> Self {
        let found = std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join("chromium").is_file()));
        assert!(found, "chromium is needed for this test: apt-get install chromium (cargo xtask test installs it)");
        let home = tempfile::tempdir().expect("temporary directory");
        // The browser speaks on the file descriptors 3 and 4.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null", "chromium"])
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"])
            .args(["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars"])
            .args(["--remote-debugging-pipe", "--window-size=1280,900"])
            .arg(format!("--user-data-dir={}", home.path().join("profile").display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(home.path().join("stderr")).expect("file"))
            .spawn()
            .expect("sh starts");
        let (input, output) = (child.stdin.take().expect("stdin"), child.stdout.take().expect("stdout"));
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(output).split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else { continue };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self { child, input, messages, number: 0, session: None, complaints: Vec::new(), loaded: false, home };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}))["targetId"].clone();
        let session = browser.call("Target.attachToTarget", json!({"targetId": target, "flatten": true}));
        browser.session = Some(session["sessionId"].as_str().expect("a session").to_owned());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Calls a method of the protocol.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.number += 1;
        let number = self.number;
        let mut message = json!({"id": number, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let written = self.input.write_all(message.to_string().as_bytes()).and_then(|()| self.input.write_all(&[0]));
        if written.and_then(|()| self.input.flush()).is_err() {
            panic!("the browser went away: {}", self.stderr());
        }
        loop {
            let message = self.next(method);
            if message["id"] == number {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
        }
    }

    fn stderr(&self) -> String {
        std::fs::read_to_string(self.home.path().join("stderr")).unwrap_or_default()
    }

    /// The next message; events are taken note of.
    fn next(&mut self, waiting_for: &str) -> Value {
        let message = match self.messages.recv_timeout(PATIENCE) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => panic!("no answer to {waiting_for} for {} s: {}", PATIENCE.as_secs(), self.stderr()),
            Err(RecvTimeoutError::Disconnected) => panic!("the browser ended during {waiting_for}: {}", self.stderr()),
        };
        let params = &message["params"];
        match message["method"].as_str().unwrap_or_default() {
            "Page.loadEventFired" => self.loaded = true,
            "Runtime.exceptionThrown" => self.complaints.push(params["exceptionDetails"].to_string()),
            "Runtime.consoleAPICalled" => self.complaints.push(params["args"].to_string()),
            "Log.entryAdded" => self.complaints.push(params["entry"].to_string()),
            "Network.requestWillBeSent" => {
                let url = params["request"]["url"].as_str().unwrap_or_default();
                if !url.starts_with("file:") && !url.starts_with("data:") {
                    self.complaints.push(format!("it asked the network for {url}"));
                }
            }
            _ => {}
        }
        message
    }

    /// Opens a page; the time it took to be loaded, its script included.
    pub fn open(&mut self, page: &Path) -> Duration {
        let start = Instant::now();
        self.loaded = false;
        let result = self.call("Page.navigate", json!({"url": format!("file://{}", page.display())}));
        assert!(result["errorText"].is_null(), "{result}");
        while !self.loaded {
            self.next("Page.navigate");
        }
        start.elapsed()
    }

    /// The value of an expression in the page.
    pub fn eval(&mut self, expression: &str) -> Value {
        let result = self.call("Runtime.evaluate", json!({"expression": expression, "returnByValue": true, "awaitPromise": true}));
        assert!(result["exceptionDetails"].is_null(), "{expression}: {}", result["exceptionDetails"]);
        result["result"]["value"].clone()
    }

    /// Lets the page draw what it has to.
    pub fn settle(&mut self) {
        self.eval("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 30))))");
    }

    /// Brings an element into view; its box: x, y, width, height.
    fn place(&mut self, selector: &str) -> [f64; 4] {
        let script = format!(
            "(() => {{ const e = document.querySelector({selector:?}); e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect(); return [b.x, b.y, b.width, b.height]; }})()"
        );
        let numbers: Vec<f64> = serde_json::from_value(self.eval(&script)).expect("a box");
        [numbers[0], numbers[1], numbers[2], numbers[3]]
    }

    /// Clicks into an element, at a part of its width and height.
    pub fn click(&mut self, selector: &str, (x, y): (f64, f64)) {
        let [left, top, width, height] = self.place(selector);
        let (x, y) = (left + width * x, top + height * y);
        for (kind, buttons) in [("mouseMoved", 0), ("mousePressed", 1), ("mouseReleased", 0)] {
            let button = if kind == "mouseMoved" { "none" } else { "left" };
            let event = json!({"type": kind, "x": x, "y": y, "button": button, "buttons": buttons, "clickCount": 1});
            self.call("Input.dispatchMouseEvent", event);
        }
        self.settle();
    }

    /// Turns the wheel over an element.
    pub fn wheel(&mut self, selector: &str, by: f64) {
        let [left, top, width, height] = self.place(selector);
        let event = json!({"type": "mouseWheel", "x": left + width / 2.0, "y": top + height / 2.0, "deltaX": 0, "deltaY": by});
        self.call("Input.dispatchMouseEvent", event);
        self.settle();
    }

    /// Presses keys one after the other, by their names.
    pub fn keys(&mut self, keys: &[&str]) {
        for key in keys {
            let text = if key.chars().count() == 1 { *key } else { "" };
            let code = match *key {
                "ArrowDown" => 40,
                "ArrowUp" => 38,
                "Enter" => 13,
                "Tab" => 9,
                _ => 0,
            };
            let text = if *key == "Enter" { "\r" } else { text };
            self.call("Input.dispatchKeyEvent", json!({"type": "keyDown", "key": key, "text": text, "windowsVirtualKeyCode": code}));
            self.call("Input.dispatchKeyEvent", json!({"type": "keyUp", "key": key, "windowsVirtualKeyCode": code}));
        }
        self.settle();
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
