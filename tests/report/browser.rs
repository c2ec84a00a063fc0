//! The page in a browser: it draws, finds and filters, by mouse and by keys, on a desk and on a telephone, by day and by night.

use crate::chromium::Chromium;
use crate::sample::{self, EVENTS_EACH, Run};
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

/// Events of the large run.
const LARGE: u64 = 100_000;

fn page(run: &Run) -> PathBuf {
    let path = run.path().join("report.html");
    std::fs::write(&path, run.report("html")).expect("write");
    path
}

/// How many pixels of a canvas have the colour a variable of the style sheet names.
fn pixels(browser: &mut Chromium, selector: &str, colour: &str) -> u64 {
    let script = format!(
        "(() => {{
            const canvas = document.querySelector({selector:?});
            const probe = new OffscreenCanvas(1, 1).getContext('2d', {{ willReadFrequently: true }});
            probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue('--{colour}').trim();
            probe.fillRect(0, 0, 1, 1);
            const [r, g, b] = probe.getImageData(0, 0, 1, 1).data;
            // A copy: reading a canvas back makes it a slow one.
            const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', {{ willReadFrequently: true }});
            copy.drawImage(canvas, 0, 0);
            const {{ data }} = copy.getImageData(0, 0, canvas.width, canvas.height);
            let count = 0;
            for (let i = 0; i < data.length; i += 4) count += data[i] === r && data[i + 1] === g && data[i + 2] === b && data[i + 3] === 255;
            return count;
        }})()"
    );
    browser.eval(&script).as_u64().expect("a number")
}

fn text(browser: &mut Chromium, selector: &str) -> String {
    browser.eval(&format!("document.querySelector({selector:?}).textContent")).as_str().unwrap_or_default().to_owned()
}

fn shown_findings(browser: &mut Chromium) -> u64 {
    browser.eval("document.querySelectorAll('details.finding:not([hidden])').length").as_u64().expect("a number")
}

fn rows(browser: &mut Chromium) -> u64 {
    let drawn = browser.eval("document.querySelector('#list-canvas').dataset.drawn");
    drawn.as_str().and_then(|rows| rows.parse().ok()).expect("rows")
}

#[test]
fn the_page_draws_finds_and_filters() {
    let run = sample::small();
    let page = page(&run);
    let mut browser = Chromium::start();
    browser.open(&page);
    browser.settle();

    // Drawn: both owners and the offence, in the list and in the picture of the first finding.
    let picture = "#finding-1 .picture canvas";
    for canvas in ["#list-canvas", picture, "#detail .picture canvas"] {
        for colour in ["cpu", "device", "bad"] {
            let count = pixels(&mut browser, canvas, colour);
            assert!(count > 20, "{canvas}: {count} pixels of the colour {colour}");
        }
    }
    assert!(text(&mut browser, "h1").contains("</script><script>alert(1)</script> & \"driver\""), "names are text");

    // A finding opens when it is clicked, with source lines, stacks, bytes and the way it came to be.
    let findings = shown_findings(&mut browser);
    assert!(findings >= 3, "{findings}");
    let last = format!("#finding-{findings}");
    let is_open = format!("document.querySelector('{last}').open");
    assert_eq!(browser.eval(&is_open), json!(false));
    browser.click(&format!("{last} > summary"), (0.3, 0.5));
    assert_eq!(browser.eval(&is_open), json!(true));
    let body = text(&mut browser, "#findings");
    for part in ["To fix: ", "driver.c:", "STEP", "What led there", "Offence", "marked where they differ", "The rule behind DV"] {
        assert!(body.contains(part), "no {part:?} in {body}");
    }
    assert!(browser.eval("document.querySelectorAll('#finding-1 pre.source .meant').length").as_u64() >= Some(2));
    assert!(browser.eval("document.querySelectorAll('#finding-1 pre.bytes mark').length").as_u64() >= Some(2));

    // Zoom: by button, by wheel once the picture has the focus, and back.
    let before = pixels(&mut browser, picture, "bad");
    browser.click("#finding-1 .tools button:nth-child(2)", (0.5, 0.5));
    browser.click(picture, (0.5, 0.9));
    browser.wheel(picture, -300.0);
    let zoomed = pixels(&mut browser, picture, "cpu");
    browser.keys(&["0"]);
    assert_eq!(pixels(&mut browser, picture, "bad"), before, "all of it is shown again");
    assert_ne!(pixels(&mut browser, picture, "cpu"), zoomed, "the wheel had zoomed");

    // The filter: by code, by words, and cleared.
    let all = rows(&mut browser);
    browser.eval(
        "document.querySelector('#filter-code').value = 'DV202'; document.querySelector('#filter').dispatchEvent(new Event('input')); 0",
    );
    browser.settle();
    assert_eq!((shown_findings(&mut browser), rows(&mut browser)), (1, 1));
    browser.click("#filter button[type=reset]", (0.5, 0.5));
    assert_eq!((shown_findings(&mut browser), rows(&mut browser)), (findings, all));
    browser.click("#filter-text", (0.5, 0.5));
    browser.call("Input.insertText", json!({"text": "DRV_TX"}));
    browser.settle();
    let by_words = (shown_findings(&mut browser), rows(&mut browser));
    assert!(by_words.0 >= 1 && by_words.0 < findings && by_words.1 >= 1 && by_words.1 < all, "{by_words:?} of {findings} and {all}");
    browser.click("#filter button[type=reset]", (0.5, 0.5));

    // From a finding to its mapping among all of them, from there to another one, and to one of its events.
    browser.click("#finding-1 .finding-body p.dim button", (0.5, 0.5));
    let chosen = text(&mut browser, "#detail h3");
    browser.click("#list-canvas", (0.6, 0.9));
    assert_ne!(text(&mut browser, "#detail h3"), chosen);
    browser.click("#detail .events tr:nth-child(2) td", (0.5, 0.5));
    let second = browser.eval("document.querySelector('#detail .events tr:nth-child(2)').getAttribute('aria-selected')");
    assert_eq!(second, json!("true"));
    assert!(text(&mut browser, "#detail ol.stack").contains("drv_"), "the call stack of the event");

    // By keys alone: a mapping, then one of its events.
    browser.eval("document.querySelector('#list').focus()");
    browser.keys(&["ArrowDown", "ArrowDown", "+", "Enter", "ArrowDown"]);
    let selected = browser.eval("document.querySelectorAll('#detail tr[aria-selected=true]').length");
    assert_eq!(selected, json!(1), "{}", text(&mut browser, "#detail"));
    assert!(text(&mut browser, "#chosen").contains("offence"), "it is said aloud");

    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[test]
fn the_page_fits_a_telephone_and_the_night() {
    let run = sample::small();
    let page = page(&run);
    let mut browser = Chromium::start();
    browser.call("Emulation.setDeviceMetricsOverride", json!({"width": 400, "height": 800, "deviceScaleFactor": 2, "mobile": false}));
    browser.open(&page);
    browser.settle();
    let wide = browser.eval("document.documentElement.scrollWidth");
    assert!(wide.as_u64() <= Some(400), "the page is {wide} pixels wide");
    let day = browser.eval("getComputedStyle(document.body).backgroundColor");
    assert!(pixels(&mut browser, "#list-canvas", "device") > 20);
    browser.call("Emulation.setEmulatedMedia", json!({"features": [{"name": "prefers-color-scheme", "value": "dark"}]}));
    browser.settle();
    assert_ne!(browser.eval("getComputedStyle(document.body).backgroundColor"), day);
    assert!(pixels(&mut browser, "#list-canvas", "device") > 20, "the pictures follow");
    assert!(pixels(&mut browser, "#finding-1 .picture canvas", "cpu") > 20, "the pictures follow");
    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[test]
fn a_hundred_thousand_events_open_in_seconds() {
    let run = sample::large(LARGE / EVENTS_EACH);
    let page = page(&run);
    let mut browser = Chromium::start();
    let took = browser.open(&page);
    let script = browser.eval("Number(document.documentElement.dataset.ready)");
    eprintln!("{LARGE} events: {} bytes, opened in {took:.1?}, {script} ms of it in the script", page.metadata().map_or(0, |m| m.len()));
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(rows(&mut browser), LARGE / EVENTS_EACH + 1, "a row for each mapping, and one for the device");
    for (canvas, colour) in [("#list-canvas", "cpu"), ("#list-canvas", "device"), ("#detail .picture canvas", "bad")] {
        assert!(pixels(&mut browser, canvas, colour) > 20, "{colour} on {canvas}");
    }
    let drawing = browser.eval(
        "(async () => {
            const list = document.querySelector('#list');
            const start = performance.now();
            for (let i = 0; i < 20; i += 1) {
                list.scrollTop = (list.scrollHeight * i) / 20;
                await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
            }
            return (performance.now() - start) / 20;
        })()",
    );
    assert!(drawing.as_f64() < Some(500.0), "a screen takes {drawing} ms");
    let nodes = browser.eval("document.querySelectorAll('*').length");
    assert!(nodes.as_u64() < Some(5000), "{nodes} elements: lists are to hold what is in view only");
    assert_eq!(browser.complaints, Vec::<String>::new());
}
