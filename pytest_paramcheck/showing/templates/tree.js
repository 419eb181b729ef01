// The tree of modules and parameters: searched, filtered, sorted and folded. Only the rows that
// are in sight are in the document, so that twenty thousand of them scroll.

const FILTERS = [
  { key: "finding", label: "with findings", test: (p) => p.findings.length },
  { key: "bad", label: "values not finite", test: (p) => p.state === "bad" },
  { key: "wild", label: "gradient not finite", test: (p) => p.grad === "not finite" },
  { key: "dead", label: "without gradient", test: (p) => p.state === "dead" },
  { key: "frozen", label: "frozen", test: (p) => p.kind === "parameter" && !p.trainable },
  { key: "ungrouped", label: "in no optimizer group",
    test: (p) => D.optimized && p.trainable && !p.groups.length },
  { key: "different", label: "different", test: (p) => p.changed || DIFFERENCES.has(p.name) },
  { key: "tied", label: "tied", test: (p) => p.aliases.length },
  { key: "buffer", label: "buffers", test: (p) => p.kind === "buffer" },
  ...D.losses.length > 1 ? D.losses.map((loss, n) => ({ key: `loss${n}`, label: `reached by ${loss}`,
    test: (p) => p.losses[n] === "nonzero" && p.trainable })) : [],
].map((filter) => ({ ...filter, count: P.filter(filter.test).length })).filter(({ count }) => count);

const has = (value) => P.some((p) => value(p) != null && value(p) !== "");
const WORST = ["bad", "wild", "dead", "frozen", "fine", "buffer"];
// As wide as the longest text in it, within bounds: nothing is cut where there is room.
const wideAs = (texts, least, most) => {
  let longest = least;
  for (const text of texts) if (text && text.length > longest) longest = text.length;
  return `${(Math.min(longest, most) * .53 + 1.2).toFixed(2)}rem`;
};
// ``wide`` ones have no place on a narrow screen.
const COLUMNS = [
  { key: "name", label: "name", width: "minmax(11rem, 1fr)", sort: (row) => row.name },
  { key: "shape", label: "shape", wide: true, about: "the shape of a tensor, the class of a module",
    width: wideAs([...P.map(shapeText), ...MODULES.map((m) => m.kind.slice(0, 18))], 6, 20),
    sort: (row) => row.type === "module" ? row.kind : row.shape },
  { key: "elements", label: "elements", number: true, width: wideAs([whole(MODULES[0].elements)], 8, 20),
    sort: (row) => row.elements },
  { key: "size", label: "size", width: "5.5rem", number: true, wide: true, sort: (row) => row.bytes },
  { key: "state", label: "state", width: "minmax(9.8rem, .7fr)", shown: P.some((p) => badges(p).length),
    sort: (row) => row.type === "module"
      ? WORST.findIndex((state) => state === "fine" || row.states[state]) : WORST.indexOf(row.state) },
  { key: "values", label: "values", width: "6.6rem", wide: true, shown: has((p) => p.values?.bars),
    about: "a histogram from the smallest to the largest value; sorted by standard deviation",
    sort: (row) => row.type === "module" ? null : row.values?.std ?? null },
  { key: "grad", label: "gradient norm", width: "5.2rem", number: true, wide: true, shown: has(gradOf), sort: gradOf },
  { key: "update", label: "update ratio", width: "5.2rem", number: true, wide: true,
    about: "how far one optimizer step moves it, as a share of its norm", shown: has(updateOf), sort: updateOf },
  { key: "change", label: "moved", width: "4.8rem", number: true, wide: true, shown: !!D.before,
    about: `how far it moved from ${D.before}, as a share of its norm`, sort: changeOf },
  { key: "group", label: "group", width: wideAs(D.groups.map((text) => text.split(":")[0]), 5, 12), wide: true,
    about: "the optimizer's parameter group", shown: D.groups.length > 1,
    sort: (row) => row.type === "module" ? null : row.groups[0] ?? -1 },
].filter(({ shown }) => shown !== false);
const NARROW = matchMedia("(max-width: 700px)");

const T = {
  open: new Set(), query: "", filter: "", list: false, column: "", down: false,
  rows: [], active: 0, height: 30, printing: false,
};

function openFirstLevels() {
  let rows = 1, level = [MODULES[0]];
  T.open.clear();
  while (level.length) {
    const more = level.reduce((sum, m) => sum + m.members.length, 0);
    if (rows + more > 40 && rows > 6) break;
    level.forEach((m) => T.open.add(m.index));
    rows += more;
    level = level.flatMap((m) => m.children);
  }
}

function matching() {
  const words = T.query.toLowerCase().split(/\s+/).filter(Boolean);
  const filter = FILTERS.find(({ key }) => key === T.filter);
  if (!words.length && !filter) return null;
  return (p) => (!filter || filter.test(p)) && words.every((word) => p.search.includes(word));
}

function inOrder(rows) {
  const column = COLUMNS.find(({ key }) => key === T.column);
  if (!column) return rows;
  const sign = T.down ? -1 : 1;
  // What has no number stands last, whatever the direction.
  return rows.map((row) => [column.sort(row), row]).sort(([a], [b]) => {
    if (a == null || b == null) return (a == null) - (b == null);
    return sign * (typeof a === "string" ? a.localeCompare(String(b), "en", { numeric: true }) : a - b);
  }).map(([, row]) => row);
}

function collect() {
  const match = matching();
  const found = match ? P.filter(match) : P;
  if (T.list) {
    T.rows = inOrder([...found]).map((row) => ({ row, level: 1 }));
  } else {
    // A search shows what it found where it stands, everything else folded away.
    let kept = null;
    if (match) {
      kept = new Set();
      for (const p of found) {
        for (let m = MODULES[p.module]; m && !kept.has(m); m = MODULES[m.parent]) kept.add(m);
      }
    }
    const within = match ? new Set(found) : null;
    T.rows = [];
    const stack = [{ row: MODULES[0], level: 1 }];
    while (stack.length) {
      const next = stack.pop();
      T.rows.push(next);
      const { row, level } = next;
      if (row.type !== "module" || !(kept || T.open.has(row.index))) continue;
      const members = row.members.filter((one) =>
        !kept || (one.type === "module" ? kept.has(one) : within.has(one)));
      for (const one of inOrder(members).reverse()) stack.push({ row: one, level: level + 1 });
    }
    if (match && !found.length) T.rows = [];
  }
  const total = rowsText(P.length);
  byId("count").textContent = match
    ? `${whole(found.length)} of ${total}` : total;
  T.active = Math.min(T.active, Math.max(T.rows.length - 1, 0));
}

// -- the document -------------------------------------------------------------------------------

const grid = byId("grid");
const head = element("div", { role: "row", class: "row head", "aria-rowindex": 1 });
const space = element("div", { class: "space", role: "presentation" });
grid.append(element("div", { role: "rowgroup" }, head), space);

// Made once: a button that is drawn anew when it is pressed loses the focus.
function drawHead() {
  head.append(...COLUMNS.map((column) => element("div", { role: "columnheader", class: cellClass(column) },
    element("button", { type: "button", title: column.about, onclick: () => sortBy(column) }, column.label,
      element("span", { class: "arrow", "aria-hidden": "true" })))));
  // Narrow screens show fewer columns, so the widths are theirs.
  const rem = (column) => parseFloat(column.width.match(/[\d.]+rem/)[0]);
  grid.style.setProperty("--columns", COLUMNS.map((c) => c.width).join(" "));
  grid.style.setProperty("--few-columns", COLUMNS.filter((c) => !c.wide)
    .map((c) => c.key === "name" ? "minmax(0, 1fr)" : c.key === "elements" ? "5rem" : "7.5rem").join(" "));
  grid.style.setProperty("--printed-columns", COLUMNS.map((c) => `minmax(0, ${rem(c)}fr)`).join(" "));
  grid.style.setProperty("--least", `${COLUMNS.reduce((sum, c) => sum + rem(c), 0)}rem`);
  grid.setAttribute("aria-colcount", COLUMNS.length);
}

function drawOrder() {
  COLUMNS.forEach((column, n) => {
    const sorted = T.column === column.key;
    head.children[n].setAttribute("aria-sort", sorted ? (T.down ? "descending" : "ascending") : "none");
    head.children[n].querySelector(".arrow").textContent = sorted ? (T.down ? " ↓" : " ↑") : "";
  });
}

// Numbers largest first, words from A on, then the other way round, then as registered.
function sortBy(column) {
  const first = !!column.number;
  if (T.column !== column.key) [T.column, T.down] = [column.key, first];
  else if (T.down === first) T.down = !first;
  else [T.column, T.down] = ["", false];
  refresh();
}

const cellClass = (column) =>
  `cell ${column.key}${column.number ? " number" : ""}${column.wide ? " wide" : ""}`;

function refresh() {
  collect();
  drawOrder();
  grid.setAttribute("aria-rowcount", T.rows.length + 1);
  space.style.height = `${T.rows.length * T.height}px`;
  drawRows();
}

function drawRows() {
  const many = T.printing ? Math.min(T.rows.length, 3000) : 0;
  const from = many ? 0 : Math.max(Math.floor(grid.scrollTop / T.height) - 8, 0);
  const to = many || Math.min(from + Math.ceil(grid.clientHeight / T.height) + 16, T.rows.length);
  const made = [];
  for (let n = from; n < to; n++) made.push(drawRow(n));
  if (!T.rows.length) made.push(element("p", { class: "empty" }, "Nothing matches."));
  space.replaceChildren(...made);
  grid.setAttribute("aria-activedescendant", T.rows.length ? `row${T.active}` : "");
}

function drawRow(n) {
  const { row, level } = T.rows[n];
  const module = row.type === "module";
  const open = module && (matching() || T.open.has(row.index));
  const made = element("div", { role: "row", id: `row${n}`, class: `row ${row.type}${n === T.active ? " active" : ""}`,
    style: `top: ${n * T.height}px`, "aria-level": level, "aria-rowindex": n + 2,
    "aria-selected": String(n === T.active), "aria-expanded": module ? String(!!open) : null });
  for (const column of COLUMNS) made.append(cell(row, level, open, column));
  made.addEventListener("click", (event) => {
    const twice = n === T.active || event.target.closest(".fold");
    activate(n);
    if (module && twice) toggle(row);
  });
  return made;
}

function cell(row, level, open, column) {
  const module = row.type === "module";
  const made = element("div", { role: "gridcell", class: cellClass(column) });
  switch (column.key) {
    case "name":
      made.style.paddingLeft = `${(level - 1) * .9 + .3}rem`;
      made.append(element("span", { class: "fold", "aria-hidden": "true" }, module ? (open ? "▾" : "▸") : ""),
        element("span", { class: "label", title: row.name || D.model },
          T.list ? row.name : row.label || "(no name)"));
      break;
    case "shape": made.textContent = module ? row.kind : shapeText(row); made.title = module ? row.kind : `${row.shape} ${row.dtype}`; break;
    case "elements":
      made.textContent = (NARROW.matches ? countText : whole)(row.elements);
      made.title = whole(row.elements);
      break;
    case "size": made.textContent = bytesText(row.bytes); break;
    case "state":
      for (const { kind, text } of module ? moduleBadges(row) : badges(row)) {
        made.append(element("span", { class: `badge ${kind}`, title: text }, text));
      }
      break;
    case "values":
      if (!module && row.values?.bars) made.append(histogram(row.values.bars, 92, 20));
      break;
    case "grad": made.textContent = short(gradOf(row)); break;
    case "update": made.textContent = short(updateOf(row)); break;
    case "change": made.textContent = short(changeOf(row)); break;
    case "group": made.textContent = module ? "" : row.groups.map((g) => D.groups[g].split(":")[0]).join(", "); break;
  }
  return made;
}

function toggle(module, open = !T.open.has(module.index)) {
  if (open) T.open.add(module.index);
  else T.open.delete(module.index);
  const row = T.rows[T.active]?.row;
  refresh();
  const now = T.rows.findIndex((one) => one.row === row);
  if (now >= 0) T.active = now;
  drawRows();
}

function activate(n, { detail = true } = {}) {
  if (!T.rows.length) return;
  T.active = Math.min(Math.max(n, 0), T.rows.length - 1);
  const top = T.active * T.height;
  const seen = grid.clientHeight - head.offsetHeight - T.height;
  if (top < grid.scrollTop) grid.scrollTop = top;
  else if (top > grid.scrollTop + seen) grid.scrollTop = top - seen;
  drawRows();
  if (detail) drawDetail(T.rows[T.active].row);
}

// Show a parameter where it stands, whatever is folded or filtered away.
function show(row) {
  if (!T.rows.some((one) => one.row === row)) {
    T.query = byId("search").value = "";
    T.filter = "";
    drawFilters();
    const module = row.type === "module" ? MODULES[row.parent] : MODULES[row.module];
    for (let m = module; m; m = MODULES[m.parent]) T.open.add(m.index);
    refresh();
  }
  const n = T.rows.findIndex((one) => one.row === row);
  activate(n);
  grid.scrollTop = Math.max(n * T.height - grid.clientHeight / 3, 0);
  drawRows();
  byId("parameters").scrollIntoView({ block: "start" });
  grid.focus({ preventScroll: true });
}

// Show only what a filter lets pass, from its first row.
function choose(key) {
  T.filter = key;
  T.active = grid.scrollTop = 0;
  drawFilters();
  refresh();
}

const FILTER_BUTTONS = FILTERS.map(({ key, label, count }) => element("button", { type: "button", class: `filter ${key}`,
  onclick: () => choose(T.filter === key ? "" : key) }, label, element("span", { class: "number" }, ` ${whole(count)}`)));
byId("filters").append(...FILTER_BUTTONS);
byId("filters").hidden = !FILTERS.length;

function drawFilters() {
  FILTERS.forEach(({ key }, n) => FILTER_BUTTONS[n].setAttribute("aria-pressed", String(T.filter === key)));
}

const STEPS = { ArrowDown: 1, ArrowUp: -1, PageDown: 15, PageUp: -15, Home: -Infinity, End: Infinity };
grid.addEventListener("keydown", (event) => {
  if (event.target !== grid || event.ctrlKey || event.metaKey || event.altKey) return;
  const { row, level } = T.rows[T.active] || {};
  if (event.key in STEPS) activate(T.active + STEPS[event.key]);
  else if (!row) return;
  else if (event.key === "ArrowRight" && row.type === "module") {
    if (T.open.has(row.index) || matching()) activate(T.active + 1);
    else toggle(row, true);
  } else if (event.key === "ArrowLeft") {
    if (row.type === "module" && T.open.has(row.index) && !matching()) toggle(row, false);
    else {
      let n = T.active;
      while (n > 0 && T.rows[n].level >= level) n -= 1;
      activate(n);
    }
  } else if (event.key === "Enter" || event.key === " ") {
    if (row.type === "module") toggle(row);
    activate(T.active);
    byId("detail").classList.add("asked");
  } else return;
  event.preventDefault();
});
grid.addEventListener("scroll", () => drawRows(), { passive: true });

byId("search").addEventListener("input", (event) => {
  T.query = event.target.value;
  T.active = 0;
  grid.scrollTop = 0;
  refresh();
});
byId("search").addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === "ArrowDown") {
    event.preventDefault();
    grid.focus();
    activate(T.rows.findIndex(({ row }) => row.type === "parameter"));
  }
});
addEventListener("keydown", (event) => {
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    byId("search").focus();
  } else if (event.key === "Escape") {
    byId("detail").classList.remove("asked");
    if (!T.query && !T.filter) return;
    T.query = byId("search").value = T.filter = "";
    drawFilters();
    refresh();
  }
});
byId("view").addEventListener("click", () => {
  T.list = !T.list;
  byId("view").setAttribute("aria-pressed", String(T.list));
  byId("expand").disabled = byId("collapse").disabled = T.list;
  T.active = 0;
  refresh();
});
byId("expand").addEventListener("click", () => { MODULES.forEach((m) => T.open.add(m.index)); refresh(); });
byId("collapse").addEventListener("click", () => { T.open.clear(); T.open.add(0); T.active = 0; refresh(); });
addEventListener("beforeprint", () => { T.printing = true; drawRows(); });
addEventListener("afterprint", () => { T.printing = false; drawRows(); });

function fitRows() {
  T.height = NARROW.matches ? 40 : 30;
  grid.style.setProperty("--row", `${T.height}px`);
  refresh();
}
