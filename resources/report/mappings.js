// All mappings: a row each in one picture, of which only what is in view is drawn, and the events of the one that is chosen.
const ROW = 34;
const list = byId("list");
const overview = {
  canvas: byId("list-canvas"),
  view: new View(timeline.last + 1, 8),
  rows: [],
  chosen: -1,
  onlyOffences: false,
  order: "made",
  get label() { return innerWidth < 620 ? 0 : Math.min(330, list.clientWidth * 0.34); },
  get left() { return this.label + 8; },
  get width() { return Math.max(list.clientWidth - this.left - 10, 40); },
  draw() {
    const height = Math.min(list.clientHeight || 340, Math.max(this.rows.length * ROW, ROW));
    if (!list.clientWidth) return;
    const context = prepare(this.canvas, list.clientWidth, height);
    const top = list.scrollTop;
    const first = Math.floor(top / ROW);
    const at = (seq) => this.left + ((seq + 0.5 - this.view.from) / this.view.span) * this.width;
    for (let row = first; row < this.rows.length && row * ROW - top < height; row += 1) {
      this.row(context, tracks[this.rows[row]], row, row * ROW - top, at);
    }
    const axis = byId("list-axis");
    axis.style.paddingLeft = `${this.left}px`;
    axis.replaceChildren(el("span", {}, `#${Math.round(this.view.from)}`), el("span", {}, "number of the event in the run"), el("span", {}, `#${Math.round(this.view.to)}`));
    this.canvas.dataset.drawn = String(this.rows.length);
  },
  row(context, track, row, y, at) {
    const narrow = this.label === 0;
    if (row === this.chosen) { context.fillStyle = colours.chosen; context.fillRect(0, y, list.clientWidth, ROW); }
    const box = { x: this.left, y: y + (narrow ? 15 : 6), width: this.width, height: narrow ? 16 : ROW - 12 };
    context.fillStyle = colours.panel; context.fillRect(box.x, box.y, box.width, box.height);
    drawTrack(context, track, box, at, this.view.from - 1, this.view.to + 1);
    this.elsewhere(context, track, box);
    context.save();
    context.beginPath(); context.rect(0, y, narrow ? list.clientWidth : this.label, ROW); context.clip();
    const worst = marksOf(track)[0];
    context.fillStyle = worst ? markColour(worst) : colours.text;
    context.font = "12px system-ui, sans-serif";
    const [head, place] = rowLabel(track);
    context.fillText(narrow ? `${head} ${place}` : head, 8, y + (narrow ? 12 : 14));
    if (!narrow) { context.fillStyle = colours.dim; context.font = "11px system-ui, sans-serif"; context.fillText(place, 8, y + 28); }
    context.restore();
    context.strokeStyle = colours.line; context.lineWidth = 1;
    context.beginPath(); context.moveTo(0, y + ROW - 0.5); context.lineTo(list.clientWidth, y + ROW - 0.5); context.stroke();
  },
  /** Which way a mapping lies that is not in view. */
  elsewhere(context, track, box) {
    const [before, after] = [Math.max(endOf(track), track.start) < this.view.from, track.start > this.view.to];
    if (!before && !after) return;
    const [x, tip] = before ? [box.x + 9, box.x + 3] : [box.x + box.width - 9, box.x + box.width - 3];
    const y = box.y + box.height / 2;
    context.fillStyle = colours.dim;
    context.beginPath(); context.moveTo(tip, y); context.lineTo(x, y - 4); context.lineTo(x, y + 4); context.fill();
  },
};

function rowLabel(track) {
  const codes = [...new Set(marksOf(track).map((one) => report.findings[one.finding].code))].join(" ");
  if (track.family === "device") return [`${timeline.devices[track.device]} ${track.driver} ${codes}`, "registers, interrupts, offences without a mapping"];
  const direction = track.direction.replace("DMA_", "");
  return [`${codes ? `${codes} ` : ""}${track.family} ${track.size.toLocaleString("en")} ${direction}`, `${timeline.places[track.events[5] || 0].short} ${track.handle}`];
}

const trackText = tracks.map((track) => {
  const findings = track.marks.map((one) => cards[one.finding].text);
  return () => [trackTitle(track), track.driver, timeline.devices[track.device], ...findings, ...placesOf(track)].join("\n").toLowerCase();
});
function placesOf(track) {
  const seen = new Set();
  for (let i = 5; i < track.events.length; i += EV) seen.add(track.events[i]);
  return [...seen].map((place) => timeline.places[place].short);
}
const trackWords = [];

function showMappings() {
  const rows = [];
  tracks.forEach((track, index) => {
    if (filter.device && timeline.devices[track.device] !== filter.device) return;
    if (filter.driver && track.driver !== filter.driver) return;
    if ((overview.onlyOffences || filter.code) && !marksOf(track).some((one) => !filter.code || report.findings[one.finding].code === filter.code)) return;
    if (filter.text) {
      trackWords[index] = trackWords[index] || trackText[index]();
      if (!trackWords[index].includes(filter.text)) return;
    }
    rows.push(index);
  });
  if (overview.order === "offences") rows.sort((a, b) => (marksOf(tracks[b]).length > 0) - (marksOf(tracks[a]).length > 0) || a - b);
  if (overview.order === "events") rows.sort((a, b) => tracks[b].events.length - tracks[a].events.length || a - b);
  const chosen = overview.rows[overview.chosen];
  overview.rows = rows;
  overview.chosen = rows.indexOf(chosen);
  const events = rows.reduce((sum, index) => sum + count(tracks[index]), 0);
  byId("list-height").style.height = `${rows.length * ROW}px`;
  byId("mappings-count").textContent = `${rows.length.toLocaleString("en")} of ${tracks.length.toLocaleString("en")}, ${plural(events, "event")}`;
  list.scrollTop = Math.min(list.scrollTop, Math.max(rows.length * ROW - list.clientHeight, 0));
  redraw(overview);
}
filter.listeners.push(showMappings, redrawPictures);

/** Chooses a mapping, and an event of it; `reveal` brings it into view. */
function choose(track, event, reveal) {
  const index = tracks.indexOf(track);
  if (!overview.rows.includes(index)) {
    byId("only-offences").checked = overview.onlyOffences = false;
    byId("filter").reset();
    overview.rows = tracks.map((_, i) => i);
  }
  overview.chosen = overview.rows.indexOf(index);
  const y = overview.chosen * ROW;
  if (y < list.scrollTop || y + ROW > list.scrollTop + list.clientHeight) list.scrollTop = Math.max(y - list.clientHeight / 2, 0);
  bringIntoSight(track);
  byId("chosen").textContent = `${trackTitle(track)}: ${plural(count(track), "event")}, ${plural(marksOf(track).length, "offence")}`;
  showDetail(track, event);
  if (reveal) byId("mappings-title").scrollIntoView({ block: "start" });
  redraw(overview);
}

/** A mapping that is out of view, or too short to see anything of, gets the room it needs. */
function bringIntoSight(track) {
  const life = Math.max(track.marks.reduce((last, one) => Math.max(last, one.seq), endOf(track)) - track.start + 1, 8);
  const { view } = overview;
  const outside = track.start >= view.to || track.start + life <= view.from;
  if (outside || (life / view.span) * overview.width < 40) view.set(track.start - life * 2, life * 6);
}

function showDetail(track, event) {
  const table = new EventTable(track);
  const picture = new Picture(track, { picked: (picked) => table.select(picked) });
  byId("detail").replaceChildren(el("h3", {}, trackTitle(track)),
    el("p", { class: "dim" }, `${track.driver ? `Driver ${track.driver}, ` : ""}${plural(count(track), "event")}; ${track.end === null ? "there to the end of the run" : `ended with #${track.end}`}`),
    picture.node, table.node);
  if (count(track) > 200) picture.view.set((event || 0) - 50, 100);
  if (event >= 0) table.select(event);
}

/** The events of a mapping; only the rows in view exist. */
class EventTable {
  constructor(track) {
    this.track = track;
    this.height = 24;
    this.selected = -1;
    this.offences = new Set(marksOf(track).map((one) => firstNotBefore(track, one.seq)));
    this.body = el("tbody", {});
    this.table = el("table", { role: "grid", "aria-rowcount": String(count(track)) }, this.body);
    this.spacer = el("div", { class: "events-height" }, this.table);
    this.scroller = el("div", { class: "events", tabIndex: 0, role: "group", "aria-label": "Events of the mapping; up and down choose one" }, this.spacer);
    this.stack = el("ol", { class: "stack" });
    this.node = el("div", {}, this.scroller, this.stack);
    this.spacer.style.height = `${count(track) * this.height}px`;
    this.scroller.addEventListener("scroll", () => redraw(this));
    this.scroller.addEventListener("keydown", (event) => {
      const by = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity }[event.key];
      if (by === undefined) return;
      event.preventDefault();
      this.select(this.selected + by);
    });
    new ResizeObserver(() => redraw(this)).observe(this.scroller);
  }
  draw() {
    const top = Math.max(Math.floor(this.scroller.scrollTop / this.height) - 4, 0);
    const rows = [];
    for (let i = top; i < count(this.track) && i < top + Math.ceil(this.scroller.clientHeight / this.height) + 8; i += 1) {
      const event = eventAt(this.track, i);
      const times = event.times > 1 ? ` x${event.times}` : "";
      rows.push(el("tr", { class: this.offences.has(i) ? "offence" : "", "aria-selected": String(i === this.selected), "aria-rowindex": String(i + 1), onclick: () => this.select(i) },
        el("td", { class: "c-seq number" }, `#${event.seq}`), el("td", { class: "c-what" }, kindText(event.kind) + times),
        el("td", { class: "c-bytes mono" }, bytesText(event.offset, event.len)), el("td", { class: "mono" }, timeline.places[event.place].short)));
    }
    this.table.style.top = `${top * this.height}px`;
    this.body.replaceChildren(...rows);
  }
  select(wanted) {
    if (!count(this.track)) return;
    const index = Math.min(Math.max(wanted, 0), count(this.track) - 1);
    this.selected = index;
    const y = index * this.height;
    if (y < this.scroller.scrollTop || y + this.height > this.scroller.scrollTop + this.scroller.clientHeight) {
      this.scroller.scrollTop = Math.max(y - (this.scroller.clientHeight || 300) / 2, 0);
    }
    const place = timeline.places[eventAt(this.track, index).place];
    this.stack.replaceChildren(...(place.frames.length ? place.frames : [place.short].filter(Boolean)).map((text) => el("li", {}, text)));
    redraw(this);
  }
}

function setUpMappings() {
  const act = (text, label, perform) => el("button", { type: "button", title: label, "aria-label": label, onclick: () => { perform(); redraw(overview); } }, text);
  byId("mappings-tools").append(
    act("−", "Zoom out", () => overview.view.zoom(2, 0.5)), act("+", "Zoom in", () => overview.view.zoom(0.5, 0.5)),
    act("◀", "Earlier", () => overview.view.move(-0.4)), act("▶", "Later", () => overview.view.move(0.4)), act("All", "Show the whole run", () => overview.view.all()),
    el("label", {}, el("input", { type: "checkbox", id: "only-offences", onchange: (event) => { overview.onlyOffences = event.target.checked; showMappings(); } }), " with an offence only"),
    el("label", {}, "Order ", el("select", { id: "order", onchange: (event) => { overview.order = event.target.value; showMappings(); } },
      el("option", { value: "made" }, "as made"), el("option", { value: "offences" }, "offences first"), el("option", { value: "events" }, "most events first"))),
    el("span", { class: "hint" }, "Ctrl and the wheel zoom"));
  byId("mappings-notes").append(...timeline.notes.map((note) => el("p", { class: "dim" }, note)));
  list.addEventListener("scroll", () => redraw(overview));
  list.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    const x = event.clientX - list.getBoundingClientRect().left;
    overview.view.zoom(Math.exp(Math.max(-1, Math.min(1, event.deltaY / 200))), Math.min(Math.max((x - overview.left) / overview.width, 0), 1));
    redraw(overview);
  }, { passive: false });
  list.addEventListener("keydown", (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8, Home: -Infinity, End: Infinity }[event.key];
    if (by !== undefined && overview.rows.length) {
      const row = Math.min(Math.max((overview.chosen < 0 ? (by > 0 ? -1 : 0) : overview.chosen) + by, 0), overview.rows.length - 1);
      choose(tracks[overview.rows[row]], 0, false);
    } else if (event.key === "Enter") {
      const events = document.querySelector("#detail .events");
      if (events) events.focus();
    } else if (!viewKey(overview, event.key)) return;
    event.preventDefault();
  });
  overview.canvas.addEventListener("click", (event) => {
    const row = Math.floor((event.clientY - list.getBoundingClientRect().top - list.clientTop + list.scrollTop) / ROW);
    const track = tracks[overview.rows[row]];
    if (!track) return;
    const seq = overview.view.from + ((event.offsetX - overview.left) / overview.width) * overview.view.span;
    choose(track, Math.min(firstNotBefore(track, seq), Math.max(count(track) - 1, 0)), false);
  });
  overview.canvas.addEventListener("pointermove", (event) => {
    const row = Math.floor((event.clientY - list.getBoundingClientRect().top - list.clientTop + list.scrollTop) / ROW);
    const track = tracks[overview.rows[row]];
    if (track) showTip(event, [trackTitle(track), rowLabel(track)[1], plural(count(track), "event")].join("\n"));
    else hideTip();
  });
  overview.canvas.addEventListener("pointerleave", hideTip);
  new ResizeObserver(() => redraw(overview)).observe(list);
}

function writeLegend() {
  const sample = (text, paint) => {
    const canvas = el("canvas", { "aria-hidden": "true" });
    byId("legend").append(el("span", {}, canvas, text));
    return () => { const context = prepare(canvas, 22, 14); paint(context); };
  };
  const kindOf = (text) => kinds.findIndex(([name]) => name === text);
  const box = { x: 0, y: 0, width: 22, height: 14 };
  const paints = [
    sample("owned by the CPU", (c) => lane(c, 0, 22, 12, 10, 1, colours.cpu)), sample("owned by the device", (c) => lane(c, 0, 22, 12, 10, 1, colours.device)),
    sample("one copy for both", (c) => lane(c, 0, 22, 12, 10, 1, colours.both)),
    sample("to the device: map, sync", (c) => arrow(c, 11, box, kindOf("synced for the device"))), sample("to the CPU: sync, unmap", (c) => arrow(c, 11, box, kindOf("synced for the CPU"))),
    sample("read", (c) => mark(c, 11, 7, 4, kindOf("device read"))), sample("write", (c) => mark(c, 11, 7, 4, kindOf("device wrote"))),
    sample("refused", (c) => mark(c, 11, 7, 4, kindOf("device read refused"))), sample("offence", (c) => offence(c, 11, { ...box, y: 4, height: 9 }, colours.bad)),
  ];
  return { draw: () => paints.forEach((paint) => paint()) };
}

readColours();
writeHead();
setUpFilter();
const legend = writeLegend();
byId("page").hidden = false;
showFindings();
setUpMappings();
showMappings();
writeRest();
redraw(legend);
const guilty = tracks.findIndex((track) => marksOf(track).length && track.events.length);
const first = guilty >= 0 ? guilty : tracks.findIndex((track) => track.family !== "device");
if (first >= 0) choose(tracks[first], guilty >= 0 ? firstNotBefore(tracks[first], marksOf(tracks[first])[0].seq) : 0, false);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  readColours();
  redrawPictures();
  redraw(overview);
  redraw(legend);
});
document.documentElement.dataset.ready = String(Math.round(performance.now() - started));
