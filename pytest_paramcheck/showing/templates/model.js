// The data of the page, and what follows from it: parameters, modules, their states and sums.

const D = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

function statistics(given) {
  if (!given) return null;
  return { low: given[0], high: given[1], mean: given[2], std: given[3], norm: given[4],
    bad: given[5], sampled: given[6], bars: given[7] };
}

const MODULES = D.modules.map(([name, parent, kind], index) => ({
  type: "module", index, name, parent: index ? parent : -1, kind,
  label: "", children: [], parameters: [],
  count: 0, elements: 0, bytes: 0, trainable: 0, grad2: 0, graded: false,
  moved2: 0, weight2: 0, stepped: false, states: {},
}));

// By index and with one empty list for all: taking twenty thousand arrays apart takes a while.
const KINDS = ["parameter", "buffer", "tensor"];
const NOTHING = [];
const P = D.parameters.map((row, index) => ({
  type: "parameter", index, label: row[0], module: row[1],
  name: row[1] ? `${MODULES[row[1]].name}.${row[0]}` : row[0],
  kind: KINDS[row[2]], trainable: (row[3] & 1) > 0, saved: (row[3] & 2) > 0, changed: (row[3] & 4) > 0,
  shape: D.words[row[4]], dtype: D.words[row[5]], device: D.words[row[6]],
  elements: row[7] ?? null, bytes: row[8] ?? null,
  grad: row[9] == null ? null : D.states[row[9]],
  values: statistics(row[10]), slope: statistics(row[11]),
  update: row[12] ?? null, change: row[13] ?? null,
  aliases: row[14] || NOTHING, groups: row[15] || NOTHING, findings: row[16] || NOTHING,
  losses: row[17] ? row[17].map((state) => D.states[state]) : NOTHING,
  state: "", search: "",
}));

// What a row is, the worst first. Buffers may hold an infinity by design (a causal mask). One NaN
// among the values makes the gradients of all others NaN, so these are states of their own.
function stateOf(p) {
  if (p.kind === "buffer") return "buffer";
  if (p.values && p.values.bad) return "bad";
  if (!p.trainable) return p.kind === "tensor" ? "fine" : "frozen";
  if (p.grad === "not finite") return "wild";
  if (p.grad === "none" || p.grad === "zero") return "dead";
  return "fine";
}
const STATE_WORDS = {
  fine: P.some((p) => p.kind === "parameter") ? "trainable" : "tensor",
  dead: "trainable, but without a gradient", frozen: "frozen",
  wild: "gradient not finite", bad: "values not finite", buffer: "buffer",
};
const STATES = ["fine", "dead", "frozen", "wild", "bad"];

const DIFFERENCE_WORDS = { shape: "shape changed", dtype: "dtype changed", tie: "tie changed",
  requires_grad: "requires_grad changed" };
const DIFFERENCES = new Map();
for (const d of D.differences) {
  DIFFERENCES.set(d.name, [...(DIFFERENCES.get(d.name) || []), d]);
}

for (const m of MODULES) {
  const above = m.parent < 0 ? "" : MODULES[m.parent].name;
  m.label = m.parent < 0 ? D.model : above ? m.name.slice(above.length + 1) : m.name;
  if (m.parent >= 0) MODULES[m.parent].children.push(m);
}
for (const p of P) {
  const module = MODULES[p.module];
  p.state = stateOf(p);
  const names = p.aliases.length ? `${p.name} ${p.aliases.map(([name]) => name).join(" ")}` : p.name;
  p.search = `${names} ${p.shape} ${p.dtype} ${module.kind}`.toLowerCase();
  module.parameters.push(p);
  for (let m = module; m; m = MODULES[m.parent]) {
    m.count += 1;
    m.elements += p.kind === "buffer" ? 0 : p.elements || 0;
    m.bytes += p.bytes || 0;
    m.trainable += p.trainable ? 1 : 0;
    if (p.kind !== "buffer") { m.first ??= p.index; m.last = p.index; }
    m.states[p.state] = (m.states[p.state] || 0) + 1;
    if (p.slope && p.slope.norm != null) { m.grad2 += p.slope.norm ** 2; m.graded = true; }
    if (p.update != null && p.values && p.values.norm) {
      m.moved2 += (p.update * p.values.norm) ** 2;
      m.weight2 += p.values.norm ** 2;
      m.stepped = true;
    }
  }
}
for (const m of MODULES) {
  // A module comes before those in it, a parameter where it was registered.
  m.members = [...m.parameters, ...m.children];
  m.search = `${m.name} ${m.kind}`.toLowerCase();
}
const BY_NAME = new Map();
for (const p of P) {
  BY_NAME.set(p.name, p);
  for (const [name] of p.aliases) BY_NAME.set(name, p);
}
// A finding may name a module: what is in several places, what is frozen as a whole.
for (const m of MODULES) if (m.name && !BY_NAME.has(m.name)) BY_NAME.set(m.name, m);

const gradOf = (row) => row.type === "module"
  ? (row.graded ? Math.sqrt(row.grad2) : null) : row.slope ? row.slope.norm : null;
const updateOf = (row) => row.type === "module"
  ? (row.stepped && row.weight2 ? Math.sqrt(row.moved2 / row.weight2) : null) : row.update;
const changeOf = (row) => row.type === "module" ? null : row.change;

// -- texts --------------------------------------------------------------------------------------

// The floating dtype that all of them have is said once, at the top.
const FLOATING = new Set(P.map((p) => p.dtype).filter((dtype) => /float|complex/.test(dtype)));
const COMMON = FLOATING.size === 1 ? [...FLOATING][0] : "";
const shapeText = (p) => p.dtype === COMMON ? p.shape : `${p.shape} ${p.dtype}`;

// What the rows are, in one word.
const TENSORS = P.every((p) => p.kind === "tensor");
const BUFFERS = P.some((p) => p.kind === "buffer");
const rowsText = (number) => TENSORS ? plural(number, "tensor") : BUFFERS
  ? plural(number, "parameter or buffer", "parameters and buffers") : plural(number, "parameter");

const whole = (number) => number == null ? "?" : String(number).replace(/\B(?=(\d{3})+$)/g, ",");
const plural = (number, word, several) =>
  `${whole(number)} ${number === 1 ? word : several || word + "s"}`;

function bytesText(count) {
  if (count == null) return "?";
  if (count < 1000) return plural(count, "byte");
  let power = 1;
  while (count / 1000 ** power >= 999.5) power += 1;
  const size = count / 1000 ** power;
  return `${size.toFixed(size < 9.995 ? 2 : size < 99.95 ? 1 : 0)} ${"?kMGTPEZY"[power]}B`;
}

// 1,532,276 as 1.53M, where there is no room for more.
function countText(number) {
  if (number == null || number < 100000) return whole(number);
  const power = Math.floor(Math.log10(number * 1.0005) / 3);
  const size = number / 1000 ** power;
  return `${size.toFixed(size < 9.995 ? 2 : size < 99.95 ? 1 : 0)}${"?kMGTPEZY"[power]}`;
}

function short(number) {
  if (number == null) return "";
  if (number === 0) return "0";
  const size = Math.abs(number);
  if (size >= 1e-3 && size < 1e5) return String(Number(number.toPrecision(3)));
  return number.toExponential(1).replace("e+", "e");
}

function badges(p) {
  const found = [];
  const add = (kind, text) => found.push({ kind, text });
  if (p.findings.length) add("finding", plural(p.findings.length, "finding"));
  if (p.kind === "buffer") add("plain", p.saved ? "buffer" : "buffer, not saved");
  if (p.values && p.values.bad) {
    add(p.kind === "buffer" ? "plain" : "bad", `${whole(p.values.bad)} not finite`);
  }
  if (p.grad === "not finite") add("wild", "gradient not finite");
  else if (!p.trainable && p.kind === "parameter") add("frozen", "frozen");
  if (p.trainable && p.grad === "none") add("dead", "no gradient");
  if (p.trainable && p.grad === "zero") add("dead", "zero gradient");
  if (D.optimized && p.trainable && !p.groups.length) add("dead", "in no group");
  if (p.groups.length > 1) add("dead", `in ${p.groups.length} groups`);
  if (p.aliases.length) add("tied", `tied, ${p.aliases.length + 1} names`);
  for (const d of DIFFERENCES.get(p.name) || []) add("diff", DIFFERENCE_WORDS[d.kind] || d.kind);
  return found;
}

function moduleBadges(m) {
  const found = [];
  const { bad = 0, wild = 0, dead = 0, frozen = 0 } = m.states;
  const own = m.count - (m.states.buffer || 0);
  const share = (n) => n === own ? "all " : `${whole(n)} `;
  if (bad) found.push({ kind: "bad", text: `${share(bad)}not finite` });
  if (wild) found.push({ kind: "wild", text: `${share(wild)}gradient not finite` });
  if (dead) found.push({ kind: "dead", text: `${share(dead)}without gradient` });
  if (frozen) found.push({ kind: "frozen", text: `${share(frozen)}frozen` });
  return found;
}
