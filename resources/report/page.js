// Data, small helpers, and the parts of the page that are plain text. Everything is written as text nodes: no string of the
// report is ever read as HTML.
const started = performance.now();
const data = JSON.parse(document.getElementById("data").textContent);
const { report, timeline, kinds, sources, rules } = data;
const tracks = timeline.tracks;
const byId = (id) => document.getElementById(id);
const EV = 7; // numbers for each event: kind, first and last sequence number, offset, bytes, place, count

/** An element with properties and children; strings become text nodes. */
function el(name, properties, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties || {})) {
    if (key === "class") node.className = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key in node) node[key] = value;
    else node.setAttribute(key, value);
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== "") node.append(child);
  }
  return node;
}

const plural = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;
const hex = (n) => "0x" + n.toString(16);
const bytesText = (offset, len) => (len ? `bytes ${hex(offset)}..${hex(offset + len)}` : "");
const shortFile = (file) => file.slice(file.lastIndexOf("/") + 1);

/** The frame to name, as the text report chooses it: a driver's own source before inlined helpers of the kernel's headers. */
function topFrame(site) {
  if (!site) return null;
  const own = (frame) => frame.line && !data.headers.some((part) => frame.file.includes(part));
  return site.frames.find(own) || site.frames.find((frame) => frame.line) || site.frames[0] || null;
}
function frameShort(frame) {
  if (!frame) return "";
  return frame.line ? `${frame.function || "-"} (${shortFile(frame.file)}:${frame.line})` : `${frame.function || "-"}${frame.offset}`;
}
function frameLong(frame) {
  const module = frame.module ? ` [${frame.module}]` : "";
  const line = frame.line ? ` (${frame.file}:${frame.line})` : "";
  return `${frame.function || "-"}${frame.offset}${module}${line}${frame.inlined ? " (inlined)" : ""}`;
}

function writeHead() {
  const verdict = report.verdict;
  const kind = verdict.exit_code === 0 ? "clean" : "error";
  byId("title").append(`dmavet: ${report.run.title} `, el("span", { class: `badge ${kind}` }, verdict.reason));
  byId("command").textContent = report.run.command.join(" ");
  const run = report.run;
  const cache = run.cache + (run.cache === "random" ? ` with seed ${run.seed}` : "");
  const rows = [
    ["Kernel", `Linux ${run.kernel}, ${plural(run.cpus, "CPU")}, ${run.memory / 1048576} MiB`],
    ["Machine", `profile ${run.profile}, lines of ${run.line_size} bytes, edges ${run.edges}, cache ${cache}`],
    ["Verdict", `${plural(verdict.errors, "error")}, ${plural(verdict.warnings, "warning")}, ${plural(verdict.notes, "note")}; exit code ${verdict.exit_code}`],
  ];
  for (const device of run.devices) {
    rows.push(["Device", `${device.device} (${device.model}): ${device.drivers.join(", ") || "no driver"}`]);
  }
  const watch = report.volatile.watch;
  rows.push(["CPU watch", watch ? watch.summary.replace(/^CPU watch /, "") : "off: the CPU's writes by content at hand-overs, its reads not at all"]);
  byId("run").append(...rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

function callSites(module) {
  const known = module.sites.filter((site) => site.reached !== "tail-call");
  const reached = known.filter((site) => site.reached === "yes");
  const others = module.sites.filter((site) => site.reached !== "yes");
  const head = `DMA call sites of ${module.module}: ${reached.length} of ${known.length} reached`;
  if (!others.length) return el("p", {}, head);
  const rows = others.map((site) => {
    const note = site.reached === "no" ? "not reached" : "tail call, cannot be told";
    return el("tr", {}, el("td", {}, note), el("td", { class: "mono" }, site.api), el("td", {}, frameShort(topFrame(site))));
  });
  return el("details", { class: "more", open: rows.length <= 12 }, el("summary", {}, head), el("table", {}, el("tbody", {}, rows)));
}

function writeRest() {
  const rest = byId("rest");
  rest.append(...report.coverage.map(callSites));
  for (const untaken of report.untaken) {
    const text = `${plural(untaken.range.len, "byte")} at offset ${hex(untaken.range.offset)} were written by ${untaken.device} and never brought to the CPU.`;
    rest.append(el("details", { class: "more" },
      el("summary", {}, "Bytes the device wrote that the CPU never took"),
      el("p", {}, `The workload failed, and these ${text} If the CPU is meant to see them, a dma_sync_*_for_cpu() or an unmap is missing before it reads.`),
      bytesTable(untaken.volatile, null),
      siteBlock(untaken.passed, false), siteBlock(untaken.mapping.made, false)));
  }
  const figure = ([name, value]) => el("tr", {}, el("td", {}, name.replaceAll("_", " ")), el("td", { class: "number" }, value.toLocaleString("en")));
  const phases = report.volatile.phases.map(([name, ms]) => [name, ms]);
  if (phases.length) {
    rest.append(el("details", { class: "more" }, el("summary", {}, "Phases, milliseconds since power-on"), el("table", {}, el("tbody", {}, phases.map(figure)))));
  }
  const counters = Object.entries(report.volatile.counters);
  if (counters.length) {
    rest.append(el("details", { class: "more" }, el("summary", {}, "Counters"), el("table", {}, el("tbody", {}, counters.map(figure)))));
  }
  if (!rest.childNodes.length) rest.append(el("p", { class: "empty" }, "Nothing else was noted."));
}

/** What the filter asks for; every part of the page that it concerns registers here. */
const filter = { text: "", device: "", driver: "", code: "", notes: data.pedantic, listeners: [] };

function setUpFilter() {
  const unique = (values) => [...new Set(values.filter(Boolean))].sort();
  const fill = (id, values) => byId(id).append(el("option", { value: "" }, "all"), ...values.map((value) => el("option", { value }, value)));
  fill("filter-device", unique([...timeline.devices, ...report.findings.map((finding) => finding.device)]));
  fill("filter-driver", unique([...report.findings.map((finding) => finding.driver), ...tracks.map((track) => track.driver)]));
  fill("filter-code", unique(report.findings.map((finding) => finding.code)));
  const notes = byId("filter-notes");
  notes.checked = filter.notes;
  const form = byId("filter");
  const read = () => {
    filter.text = byId("filter-text").value.trim().toLowerCase();
    for (const part of ["device", "driver", "code"]) filter[part] = byId(`filter-${part}`).value;
    filter.notes = notes.checked;
    filter.listeners.forEach((listener) => listener());
  };
  form.addEventListener("input", read);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { notes.checked = data.pedantic; read(); }, 0));
}
