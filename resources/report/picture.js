// Pictures: the life of a mapping from left to right, the CPU's lane above the device's.
const colours = {};
function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["back", "panel", "line", "text", "dim", "cpu", "device", "both", "bad", "warn", "mark", "chosen"]) {
    colours[name] = style.getPropertyValue(`--${name}`).trim();
  }
}
/** Pictures on the page, to be drawn again in other colours or with notes. */
const pictures = new Set();
function redrawPictures() {
  for (const picture of pictures) {
    if (picture.node.isConnected) redraw(picture);
    else pictures.delete(picture);
  }
}
const redraws = new Set();
let frame = 0;
/** Draws everything that was asked for, once, before the next frame. */
function redraw(picture) {
  redraws.add(picture);
  if (!frame) {
    frame = requestAnimationFrame(() => {
      frame = 0;
      const now = [...redraws];
      redraws.clear();
      now.forEach((one) => one.draw());
    });
  }
}

const count = (track) => track.events.length / EV;
const eventAt = (track, index) => {
  const [kind, seq, last, offset, len, place, times] = track.events.slice(index * EV, index * EV + EV);
  return { kind, seq, last, offset, len, place, times };
};
/** Index of the first event that is not over before `seq`. */
function firstNotBefore(track, seq) {
  let [low, high] = [0, count(track)];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (track.events[middle * EV + 2] < seq) low = middle + 1;
    else high = middle;
  }
  return low;
}
/** Where a sequence number lies when every event of a track is one step wide. */
function stepOf(track, seq) {
  const index = firstNotBefore(track, seq);
  return index < count(track) && track.events[index * EV + 1] <= seq ? index + 0.5 : index;
}
const endOf = (track) => (track.end === null ? timeline.last : track.end);
const kindText = (kind) => kinds[kind][0];
const actor = (kind) => kinds[kind][1];
const isTwoCopies = (track) => ["single", "sg", "pages"].includes(track.family);
const isWrite = (text) => /wrote|write/.test(text);
const isRefused = (text) => /refused/.test(text);

function describe(track, event) {
  const times = event.times > 1 ? ` x${event.times}` : "";
  const number = event.last > event.seq ? `#${event.seq} to #${event.last}` : `#${event.seq}`;
  return [`${number} ${kindText(event.kind)}${times}`, bytesText(event.offset, event.len), timeline.places[event.place].short].filter(Boolean).join("\n");
}

/** What is shown of the positions: from `from` to `to` of 0 to `whole`. */
class View {
  constructor(whole, smallest) { this.whole = Math.max(whole, smallest); this.smallest = smallest; this.from = 0; this.to = this.whole; }
  get span() { return this.to - this.from; }
  set(from, span) {
    span = Math.min(Math.max(span, this.smallest), this.whole);
    this.from = Math.min(Math.max(from, 0), this.whole - span);
    this.to = this.from + span;
  }
  zoom(factor, at) { const fixed = this.from + this.span * at; const span = this.span * factor; this.set(fixed - span * at, span); }
  move(part) { this.set(this.from + this.span * part, this.span); }
  all() { this.set(0, this.whole); }
  get isAll() { return this.span >= this.whole; }
}

function prepare(canvas, width, height) {
  const scale = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

function lane(context, left, right, base, height, share, colour) {
  if (share <= 0 || right <= left) return;
  const tall = share >= 1 ? height : Math.max(height * share, 3);
  context.fillStyle = colour;
  context.fillRect(left, base - tall, Math.max(right - left, 1), tall);
}

/** A mark: hollow for a read, filled for a write, a cross for what was refused. */
function mark(context, x, y, size, kind) {
  const text = kindText(kind);
  context.lineWidth = 1.5;
  if (isRefused(text)) {
    context.strokeStyle = colours.bad;
    context.beginPath();
    context.moveTo(x - size, y - size); context.lineTo(x + size, y + size);
    context.moveTo(x - size, y + size); context.lineTo(x + size, y - size);
    context.stroke();
    return;
  }
  context.strokeStyle = colours.mark;
  context.fillStyle = isWrite(text) ? colours.mark : colours.back;
  context.beginPath();
  if (isWrite(text)) context.rect(x - size, y - size, 2 * size, 2 * size);
  else context.arc(x, y, text.includes("polled") ? size * 0.6 : size, 0, 7);
  context.fill();
  context.stroke();
}

/** A hand-over: an arrow from the side that had the bytes to the side that gets them. */
function arrow(context, x, box, kind) {
  const text = kindText(kind);
  const down = text === "mapped" || text === "synced for the device";
  const weak = text.includes("without") || text === "allocated" || text === "freed" || text.startsWith("still");
  const [top, bottom] = [box.y + 1, box.y + box.height - 1];
  context.strokeStyle = context.fillStyle = colours.mark;
  context.lineWidth = 1.5;
  context.setLineDash(weak ? [3, 2] : []);
  context.beginPath(); context.moveTo(x, top); context.lineTo(x, bottom); context.stroke();
  context.setLineDash([]);
  if (weak || kind >= kinds.length) return;
  const [tip, back] = down ? [bottom, bottom - 6] : [top, top + 6];
  context.beginPath(); context.moveTo(x, tip); context.lineTo(x - 3.5, back); context.lineTo(x + 3.5, back); context.fill();
}

/** What was found about a track, without the notes unless they are wanted. */
const marksOf = (track) => track.marks.filter((one) => filter.notes || report.findings[one.finding].severity !== "note");
const markColour = (one) => colours[{ error: "bad", warning: "warn", note: "dim" }[report.findings[one.finding].severity]];

function offence(context, position, box, colour) {
  const x = Math.round(position);
  context.strokeStyle = context.fillStyle = colour;
  context.lineWidth = 2;
  context.beginPath(); context.moveTo(x, box.y - 2); context.lineTo(x, box.y + box.height + 2); context.stroke();
  const s = Math.min(6, box.height / 4);
  context.beginPath();
  context.moveTo(x, box.y - s); context.lineTo(x + s, box.y); context.lineTo(x, box.y + s); context.lineTo(x - s, box.y);
  context.fill();
}

/**
 * Draws a track into a box: `at` gives the pixel of a sequence number, `first` and `last` are the sequence numbers in view.
 * Marks that would lie on each other are drawn once.
 */
function drawTrack(context, track, box, at, first, last) {
  const half = box.height / 2;
  const [cpuBase, deviceBase] = [box.y + half - 1, box.y + box.height];
  const [left, right] = [box.x, box.x + box.width];
  const clip = (x) => Math.min(Math.max(x, left), right);
  context.save();
  context.beginPath(); context.rect(left - 7, box.y - 8, box.width + 14, box.height + 16); context.clip();
  const mapping = track.family !== "device";
  if (mapping && isTwoCopies(track)) {
    for (let i = 0; i < track.spans.length; i += 3) {
      const [from, to, device] = [track.spans[i], track.spans[i + 1], track.spans[i + 2]];
      if (to < first || from > last) continue;
      const share = track.size ? device / track.size : 1;
      const [x1, x2] = [clip(at(from)), clip(at(to))];
      lane(context, x1, x2, cpuBase, half - 1, 1 - share, colours.cpu);
      lane(context, x1, x2, deviceBase, half - 1, share, colours.device);
    }
  } else if (mapping && endOf(track) >= first && track.start <= last) {
    const [x1, x2] = [clip(at(track.start)), clip(at(endOf(track)))];
    // One copy that both use; memory of a device has no side of the CPU.
    if (track.family === "coherent") lane(context, x1, x2, cpuBase, half - 1, 1, colours.both);
    lane(context, x1, x2, deviceBase, half - 1, 1, colours.both);
  }
  if (track.gap && track.gap.to >= first && track.gap.from <= last) {
    const [x1, x2] = [clip(at(track.gap.from)), clip(at(track.gap.to))];
    context.fillStyle = colours.panel; context.fillRect(x1, box.y, x2 - x1, box.height);
    context.fillStyle = colours.dim; context.font = "11px system-ui, sans-serif";
    context.fillText(`${plural(track.gap.events, "event")} not kept`, x1 + 4, box.y + half);
  }
  const size = Math.min(4, Math.max(2, half / 5));
  const drawn = new Map();
  for (let i = firstNotBefore(track, first); i < count(track) && track.events[i * EV + 1] <= last; i += 1) {
    const kind = track.events[i * EV];
    const x = at(track.events[i * EV + 1]);
    const pixel = Math.round(x * 0.75);
    if (drawn.get(kind) === pixel) continue;
    drawn.set(kind, pixel);
    if (actor(kind) === "call") arrow(context, x, box, kind);
    else if (actor(kind) === "device") mark(context, x, box.y + half * 1.5, size, kind);
    else if (actor(kind) === "cpu") mark(context, x, box.y + half * 0.5, size, kind);
    else { context.fillStyle = colours.dim; context.fillRect(x - 0.5, box.y + 2, 1, box.height - 4); }
  }
  context.restore();
  for (const one of marksOf(track)) {
    const x = at(one.seq);
    if (one.seq >= first && one.seq <= last && x >= left - 1 && x <= right + 1) offence(context, x, box, markColour(one));
  }
}

/** The picture of one mapping, with zoom: `even` gives every event the same room, else they lie as in the run. */
class Picture {
  constructor(track, options) {
    this.track = track;
    this.options = options || {};
    this.even = true;
    this.hover = -1;
    this.canvas = el("canvas", { tabIndex: 0, role: "img" });
    this.tools = el("div", { class: "tools" },
      this.button("−", "Zoom out", () => this.view.zoom(2, 0.5)), this.button("+", "Zoom in", () => this.view.zoom(0.5, 0.5)),
      this.button("◀", "Earlier", () => this.view.move(-0.4)), this.button("▶", "Later", () => this.view.move(0.4)),
      this.button("All", "Show all of it", () => this.view.all()),
      this.scaleButton = el("button", { type: "button", onclick: () => { this.even = !this.even; this.reset(); } }),
      el("span", { class: "hint" }, "Click the picture: the wheel zooms, dragging moves; keys + − ← → 0"));
    this.node = el("div", {}, this.tools, el("div", { class: "picture" }, this.canvas));
    this.reset();
    pictures.add(this);
    listen(this, this.canvas, () => ({ left: this.left, width: this.width }));
    this.canvas.addEventListener("pointermove", (event) => this.point(event));
    this.canvas.addEventListener("pointerleave", () => { hideTip(); this.hover = -1; redraw(this); });
    this.canvas.addEventListener("click", () => { if (this.hover >= 0 && this.options.picked) this.options.picked(this.hover); });
    new ResizeObserver(() => redraw(this)).observe(this.node);
  }
  button(text, label, act) {
    return el("button", { type: "button", title: label, "aria-label": label, onclick: () => { act(); redraw(this); } }, text);
  }
  reset() {
    const { track } = this;
    if (this.even) this.view = new View(Math.max(count(track), 1), 4);
    else {
      const [first, last] = [track.start, Math.max(track.end === null ? 0 : track.end, track.events[track.events.length - EV + 2] || 0, ...track.marks.map((one) => one.seq))];
      this.base = first;
      this.view = new View(last - first + 1, 8);
    }
    this.scaleButton.textContent = this.even ? "Even steps" : "Order of the run";
    this.scaleButton.title = this.even ? "Every event of this mapping is a step; switch to the event numbers of the whole run" : "By the event numbers of the whole run; switch to even steps";
    this.canvas.setAttribute("aria-label", `${trackTitle(track)}: ${plural(count(track), "event")}, ${plural(marksOf(track).length, "offence")}. They are listed below.`);
    redraw(this);
  }
  at(seq) {
    const position = this.even ? stepOf(this.track, seq) : seq - this.base + 0.5;
    return this.left + ((position - this.view.from) / this.view.span) * this.width;
  }
  seqAt(position) {
    if (!this.even) return this.base + position;
    const index = Math.min(Math.max(Math.floor(position), 0), Math.max(count(this.track) - 1, 0));
    return count(this.track) ? this.track.events[index * EV + 1] : 0;
  }
  draw() {
    const full = this.canvas.parentNode.clientWidth;
    if (!full) return;
    this.left = 56;
    this.width = full - this.left - 14;
    const [top, height] = [24, 68];
    const context = prepare(this.canvas, full, top + height + 46);
    const box = { x: this.left, y: top, width: this.width, height };
    context.font = "12px system-ui, sans-serif";
    context.fillStyle = colours.cpu; context.fillText("CPU", 8, top + height * 0.25 + 4);
    context.fillStyle = colours.device; context.fillText("device", 8, top + height * 0.75 + 4);
    context.fillStyle = colours.panel;
    context.fillRect(box.x, box.y, box.width, height / 2 - 1); context.fillRect(box.x, box.y + height / 2, box.width, height / 2);
    const [first, last] = this.even ? [this.seqAt(Math.floor(this.view.from) - 1), this.view.isAll ? Infinity : this.seqAt(Math.ceil(this.view.to))] : [this.base + this.view.from, this.base + this.view.to];
    drawTrack(context, this.track, box, (seq) => this.at(seq), first, last);
    this.numbers(context, box, first, last);
    this.canvas.dataset.drawn = String(count(this.track));
  }
  numbers(context, box, first, last) {
    const { track } = this;
    context.textAlign = "center";
    context.font = "11px system-ui, sans-serif";
    let free = -Infinity;
    for (let i = firstNotBefore(track, first); i < count(track) && track.events[i * EV + 1] <= last; i += 1) {
      const x = this.at(track.events[i * EV + 1]);
      if (i === this.hover) {
        context.strokeStyle = colours.text; context.lineWidth = 1;
        context.strokeRect(x - 7, box.y - 4, 14, box.height + 8);
      }
      const text = this.even ? String(i + 1) : `#${track.events[i * EV + 1]}`;
      const wide = context.measureText(text).width / 2 + 4;
      if (x - wide < free || x < box.x - 1 || x > box.x + box.width + 1) continue;
      free = x + wide;
      context.fillStyle = colours.dim; context.fillText(text, x, box.y + box.height + 16);
      if (this.view.span * 92 < this.width && this.even) {
        const words = kindText(track.events[i * EV]).replace(/without a CPU sync/, "(no sync)").replace(/still mapped.*/, "dropped").split(" ");
        const split = Math.ceil(words.length / 2);
        context.fillText(words.slice(0, split).join(" "), x, box.y + box.height + 28);
        context.fillText(words.slice(split).join(" "), x, box.y + box.height + 39);
      }
    }
    const seen = new Map();
    for (const one of marksOf(track)) {
      const x = this.at(one.seq);
      if (one.seq < first || one.seq > last || x < box.x - 1 || x > box.x + box.width + 1) continue;
      const row = seen.get(Math.round(x / 50)) || 0;
      seen.set(Math.round(x / 50), row + 1);
      if (row) continue;
      context.fillStyle = markColour(one); context.font = "bold 11px system-ui, sans-serif";
      context.fillText(report.findings[one.finding].code, Math.min(Math.max(x, box.x + 18), box.x + box.width - 18), box.y - 10);
    }
    context.textAlign = "left";
  }
  point(event) {
    const x = event.offsetX;
    const { track } = this;
    const position = this.view.from + ((x - this.left) / this.width) * this.view.span;
    const near = this.even ? Math.floor(position) : firstNotBefore(track, this.base + position);
    let best = -1;
    for (let i = Math.max(near - 2, 0); i <= near + 2 && i < count(track); i += 1) {
      const distance = Math.abs(this.at(track.events[i * EV + 1]) - x);
      if (distance < 14 && (best < 0 || distance < Math.abs(this.at(track.events[best * EV + 1]) - x))) best = i;
    }
    if (best !== this.hover) { this.hover = best; redraw(this); }
    if (best < 0) return hideTip();
    const shown = eventAt(track, best);
    const offences = marksOf(track).filter((one) => one.seq >= shown.seq && one.seq <= shown.last).map((one) => `${report.findings[one.finding].code}: ${report.findings[one.finding].volatile.message}`);
    showTip(event, [describe(track, shown), ...offences].join("\n"));
  }
}

/** Wheel (once the picture has the focus, or with Ctrl), dragging and keys on a picture with a `view`. */
function listen(picture, canvas, area) {
  let drag = null;
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && document.activeElement !== canvas) return;
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) picture.view.move(event.deltaX / area().width);
    else picture.view.zoom(Math.exp(Math.max(-1, Math.min(1, event.deltaY / 200))), Math.min(Math.max((event.offsetX - area().left) / area().width, 0), 1));
    event.preventDefault();
    redraw(picture);
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => { drag = { x: event.offsetX, from: picture.view.from }; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", (event) => {
    if (!drag) return;
    picture.view.set(drag.from - ((event.offsetX - drag.x) / area().width) * picture.view.span, picture.view.span);
    redraw(picture);
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { drag = null; });
  canvas.addEventListener("keydown", (event) => { if (viewKey(picture, event.key)) event.preventDefault(); });
}

function viewKey(picture, key) {
  const acts = {
    "+": () => picture.view.zoom(0.5, 0.5), "=": () => picture.view.zoom(0.5, 0.5), "-": () => picture.view.zoom(2, 0.5), "−": () => picture.view.zoom(2, 0.5),
    ArrowLeft: () => picture.view.move(-0.2), ArrowRight: () => picture.view.move(0.2), 0: () => picture.view.all(),
  };
  if (!Object.hasOwn(acts, key)) return false;
  acts[key]();
  redraw(picture);
  return true;
}

const tip = byId("tip");
function showTip(event, text) {
  tip.textContent = text;
  tip.hidden = false;
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8))}px`;
  const below = event.clientY + 16;
  tip.style.top = `${below + tip.offsetHeight < innerHeight ? below : Math.max(4, event.clientY - tip.offsetHeight - 12)}px`;
}
function hideTip() { tip.hidden = true; }

const trackTitle = (track) => (track.family === "device"
  ? `${timeline.devices[track.device]}: registers and interrupts`
  : `${track.family} of ${track.size.toLocaleString("en")} bytes, ${track.direction}, handle ${track.handle}`);
