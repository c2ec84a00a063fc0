// The findings: a line each, the rest is written when it is opened.
const trackOfFinding = new Map();
tracks.forEach((track) => track.marks.forEach((one) => { if (!trackOfFinding.has(one.finding)) trackOfFinding.set(one.finding, track); }));

function sourceBlock(frame) {
  const excerpt = frame && sources[`${frame.file}:${frame.line}`];
  if (!excerpt) return null;
  // Only what the lines are indented in common is left out.
  const indents = excerpt.lines.filter((text) => text.trim()).map((text) => text.match(/^\t*/)[0].length);
  const common = Math.min(...indents, 8);
  const lines = excerpt.lines.map((text, index) => {
    const number = excerpt.first + index;
    const meant = number === frame.line;
    return el("span", { class: meant ? "meant" : "" }, `${meant ? ">" : " "}${String(number).padStart(5)}  ${text.slice(Math.min(common, text.length))}`);
  });
  return el("pre", { class: "source", tabIndex: 0, "aria-label": `${frame.file}, line ${frame.line}` }, lines);
}

function stackLine(frame, isTop) {
  const item = el("li", { class: isTop ? "top" : "" });
  if (isTop || !sources[`${frame.file}:${frame.line}`]) {
    item.append(frameLong(frame));
    return item;
  }
  let shown = null;
  item.append(el("button", { type: "button", title: "Show the source lines", onclick: () => {
    if (shown) { shown.remove(); shown = null; return; }
    shown = sourceBlock(frame);
    item.append(shown);
  } }, frameLong(frame)));
  return item;
}

/** A place: what happened there, the source lines of the frame that counts, and the call stack. */
function siteBlock(site, withSource) {
  if (!site) return null;
  const top = topFrame(site);
  const items = [];
  site.frames.forEach((frame, index) => {
    (site.volatile || []).filter((guess) => guess.after === index).forEach((guess) => items.push(el("li", { class: "dim" }, `? ${frameLong(guess.frame)}`)));
    items.push(stackLine(frame, withSource && frame === top));
  });
  (site.volatile || []).filter((guess) => guess.after >= site.frames.length).forEach((guess) => items.push(el("li", { class: "dim" }, `? ${frameLong(guess.frame)}`)));
  if (!items.length) items.push(el("li", { class: "dim" }, "(not known)"));
  const rest = items.length > 10 ? items.splice(8) : [];
  return el("div", {}, el("h3", {}, site.what), withSource ? sourceBlock(top) : null, el("ol", { class: "stack" }, items),
    rest.length ? el("details", { class: "more" }, el("summary", {}, plural(rest.length, "more frame")), el("ol", { class: "stack" }, rest)) : null);
}

function bytesTable(bytes, finding) {
  if (!bytes || (!bytes.cpu && !bytes.device)) return null;
  const access = finding && finding.access;
  const ours = access ? { read: "read  ", write: "wrote " }[access.operation] : "CPU   ";
  const pairs = (text) => text.match(/../g) || [];
  const [cpu, device] = [pairs(bytes.cpu), pairs(bytes.device)];
  const pre = el("pre", { class: "bytes", tabIndex: 0, "aria-label": "Bytes of the mapping on both sides" });
  const range = access && finding.range;
  for (let row = 0; row < cpu.length; row += 16) {
    const at = bytes.offset + row;
    // Of an access only what it touched.
    if (range && (at + 16 <= range.offset || range.offset + range.len <= at)) continue;
    const cells = (side, other) => side.slice(row, row + 16).flatMap((byte, i) => [" ", byte === other[row + i] ? byte : el("mark", {}, byte)]);
    const offset = hex(at).padStart(6);
    pre.append(`${offset}  ${ours}`, ...cells(cpu, device), "\n", `        device`, ...cells(device, cpu), "\n");
  }
  return el("div", {}, el("h3", {}, "Bytes of the mapping, marked where they differ"), pre);
}

function historyTable(finding) {
  const history = finding.volatile.history || [];
  if (!history.length) return null;
  const rows = history.map((event, index) => el("tr", {}, el("td", { class: "number dim" }, String(index + 1)), el("td", { class: "number" }, `#${event.seq}`), el("td", {}, event.what), el("td", { class: "mono" }, event.place)));
  return el("div", {}, el("h3", {}, "What led there"), el("table", { class: "history" }, el("tbody", {}, rows)));
}

function findingBody(finding, index) {
  const body = el("div", { class: "finding-body" }, el("p", { class: "message" }, finding.volatile.message));
  const detail = finding.volatile.access;
  if (finding.access && detail) {
    const what = finding.access.operation === "read" ? "Read" : "Write";
    body.append(el("p", { class: "mono" }, `${what} of size ${detail.len} at ${detail.at || detail.rip} by CPU ${detail.cpu}${finding.access.user ? ", in user mode" : ""}`));
  }
  const mapping = finding.mapping;
  const handles = finding.volatile.handles;
  const about = [el("dt", {}, "Device"), el("dd", {}, `${finding.device}, driver ${finding.driver || "-"}`)];
  if (mapping) {
    about.push(el("dt", {}, "Mapping"), el("dd", {}, `${mapping.family} of ${mapping.size.toLocaleString("en")} bytes, ${mapping.direction}${handles ? `, handles ${handles[0]}..${handles[1]}` : ""}`));
  }
  if (finding.volatile.count > 1) about.push(el("dt", {}, "Seen"), el("dd", {}, `${finding.volatile.count.toLocaleString("en")} times`));
  body.append(el("dl", {}, about));
  const track = trackOfFinding.get(index);
  if (track && track.events.length) {
    const picture = new Picture(track, { picked: (event) => choose(track, event, true) });
    body.append(el("h3", {}, "The mapping, from left to right"), picture.node);
    const at = firstNotBefore(track, finding.volatile.first_seq);
    // A long life: begin with what is around the offence.
    if (count(track) > 60) picture.view.set(at - 20, 32);
    body.append(el("p", { class: "dim" }, el("button", { type: "button", onclick: () => choose(track, at, true) }, "Show it among all mappings")));
  }
  const sites = [];
  for (const site of [finding.offence, finding.consequence, finding.handover, mapping && mapping.made].filter(Boolean)) {
    const same = sites.find((other) => site.frames.length && JSON.stringify(other.frames) === JSON.stringify(site.frames));
    if (!same) sites.push({ ...site });
    else if (!["Mapped", "Allocated"].includes(site.what)) same.what += `. ${site.what}`;
  }
  body.append(el("div", { class: "sides" }, sites.map((site) => siteBlock(site, true))));
  for (const part of [bytesTable(finding.volatile.bytes, finding), historyTable(finding)]) if (part) body.append(part);
  body.append(el("p", { class: "fix" }, el("strong", {}, "To fix: "), finding.advice));
  const rule = rules[finding.code];
  if (rule) {
    body.append(el("details", { class: "more" }, el("summary", {}, `The rule behind ${finding.code}`),
      el("p", {}, rule.rule), el("p", { class: "dim" }, `Source: ${rule.source}`),
      el("h3", {}, "Example of the bug"), el("pre", {}, rule.example), el("h3", {}, "The fix"), el("pre", {}, rule.fix)));
  }
  return body;
}

function findingTitle(finding) {
  const top = topFrame(finding.offence);
  return `${finding.code}${finding.kind ? ` (${finding.kind})` : ""} ${finding.slug}${top ? ` in ${frameShort(top)}` : ""}`;
}

const cards = report.findings.map((finding, index) => {
  const words = [findingTitle(finding), finding.volatile.message, finding.device, finding.driver, finding.advice, ...(finding.volatile.handles || []),
    ...[finding.offence, finding.consequence, finding.handover, finding.mapping && finding.mapping.made].filter(Boolean).flatMap((site) => site.frames.map(frameLong))];
  return { finding, index, text: words.join("\n").toLowerCase(), node: null };
});

function card(one) {
  const { finding } = one;
  const times = finding.volatile.count > 1 ? `, seen ${finding.volatile.count.toLocaleString("en")} times` : "";
  const node = el("details", { class: "finding", id: `finding-${one.index + 1}` },
    el("summary", {}, el("span", { class: `badge ${finding.severity}` }, finding.severity), " ", el("span", { class: "finding-title" }, findingTitle(finding)),
      el("span", { class: "dim" }, ` ${finding.device} ${finding.driver}${times}`)));
  let written = false;
  const write = () => {
    if (written || !node.open) return;
    written = true;
    node.append(findingBody(finding, one.index));
  };
  node.addEventListener("toggle", write);
  return { node, write };
}

function shownFinding(one) {
  const { finding } = one;
  return (filter.notes || finding.severity !== "note") && (!filter.device || finding.device === filter.device) && (!filter.driver || finding.driver === filter.driver)
    && (!filter.code || finding.code === filter.code) && (!filter.text || one.text.includes(filter.text));
}

function showFindings() {
  const list = byId("findings");
  let shown = 0;
  for (const one of cards) {
    if (!one.node) {
      const made = card(one);
      one.node = made.node;
      list.append(one.node);
      if (one.index === 0) { one.node.open = true; made.write(); }
    }
    one.node.hidden = !shownFinding(one);
    shown += one.node.hidden ? 0 : 1;
  }
  const notes = filter.notes ? 0 : report.verdict.notes;
  const hidden = notes ? `, ${plural(notes, "note")} not shown` : "";
  byId("findings-count").textContent = cards.length ? `${shown} of ${cards.length}${hidden}` : "none";
}
filter.listeners.push(showFindings);
