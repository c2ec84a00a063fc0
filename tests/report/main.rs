//! The report formats that draw every mapping of a run: their data, what they look like to their readers, and the page in a browser.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../guest/bench.rs"]
mod bench;
mod browser;
mod chromium;
mod data;
mod perfetto;
mod sample;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../guest/tool.rs"]
mod tool;
