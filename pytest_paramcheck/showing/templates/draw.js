// Elements, histograms and charts.

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") made.addEventListener("click", value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const HEIGHTS = "0123456789abcdefghijklmnopqrstuvwxyz";

// A small histogram; the detail has a large one with its axis.
function histogram(bars, width, height) {
  const step = width / bars.length;
  let path = "";
  for (let i = 0; i < bars.length; i++) {
    const tall = HEIGHTS.indexOf(bars[i]) / D.heights * height;
    if (tall) {
      path += `M${(i * step).toFixed(1)} ${height}v${(-Math.max(tall, 1)).toFixed(1)}`
        + `h${Math.max(step - .6, .6).toFixed(1)}V${height}z`;
    }
  }
  return svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, class: "histogram",
    "aria-hidden": "true" }, svg("path", { d: path }));
}

function tip(text, x, y) {
  const box = byId("tip");
  box.hidden = !text;
  if (!text) return;
  box.textContent = text;
  const room = document.documentElement.clientWidth - box.offsetWidth - 8;
  box.style.left = `${Math.max(8, Math.min(x + 14, room))}px`;
  box.style.top = `${y + 14}px`;
}

// Parameters in their order along x, one of their numbers along y, by powers of ten.
// Every point can be had with the keyboard too, and opens its row.
function chart(host, { title, hint, value, none, lines = [] }) {
  const rows = P.filter((p) => p.kind !== "buffer");
  const points = rows.map((p, x) => ({ p, x, y: value(p) }));
  const positive = points.filter(({ y }) => y > 0 && isFinite(y));
  const lost = none ? points.filter(({ p }) => none(p)) : [];
  const figure = element("figure", { class: "chart" });
  const said = element("p", { class: "said", "aria-live": "polite" });
  figure.append(element("figcaption", {}, element("strong", {}, title), " ", hint));
  host.append(figure);
  if (!positive.length) {
    figure.append(element("p", { class: "hint" }, "nothing to show"));
    return;
  }
  const exponents = positive.map(({ y }) => Math.log10(y));
  let top = exponents.reduce((a, b) => Math.max(a, b));
  let bottom = exponents.reduce((a, b) => Math.min(a, b));
  // Rounding errors of 1e-12 would flatten what there is to see.
  bottom = Math.floor(Math.max(bottom, top - 10));
  top = Math.ceil(top) === bottom ? bottom + 1 : Math.ceil(top);
  const parts = modulesAlong(rows);
  const under = parts.length > 1 ? 20 : 0;
  const height = 170 + under, left = 46, low = (lost.length ? 22 : 6) + under;
  let at = -1, across, place;

  function draw() {
    figure.querySelector("svg")?.remove();
    const width = Math.max(figure.clientWidth, 260);
    const image = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, tabindex: "0",
      role: "img", "aria-label": `${title}: ${plural(positive.length, "parameter")}`
        + (lost.length ? `, ${whole(lost.length)} without` : "")
        + `. Arrow keys go through them, Enter shows one.` });
    const span = (width - left - 8) / Math.max(rows.length - 1, 1);
    across = (x) => left + (rows.length === 1 ? (width - left) / 2 : x * span);
    place = (y) => 8 + (top - Math.max(Math.log10(y), bottom)) / (top - bottom) * (height - 8 - low);
    const every = Math.max(1, Math.ceil((top - bottom) / 5));
    for (let e = bottom; e <= top; e += every) {
      image.append(svg("path", { class: "rule", d: `M${left} ${place(10 ** e)}H${width - 4}` }));
      const label = svg("text", { x: left - 6, y: place(10 ** e) + 4, class: "axis" });
      label.textContent = e >= -3 && e <= 3 ? String(Number((10 ** e).toPrecision(1))) : `1e${e}`;
      image.append(label);
    }
    // One or two powers of ten alone say little of what is between them.
    for (let e = bottom; e < top && top - bottom < 3; e++) {
      for (const times of [2, 5]) {
        image.append(svg("path", { class: "rule faint", d: `M${left} ${place(times * 10 ** e)}H${width - 4}` }));
      }
    }
    labelModules(image, parts, (n) => Math.max(across(n - .5), left), height - under, width);
    for (const line of lines) {
      if (Math.log10(line) > bottom && Math.log10(line) < top) {
        image.append(svg("path", { class: "guide", d: `M${left} ${place(line)}H${width - 4}` }));
      }
    }
    const dots = (chosen) => chosen.map(({ x, y }) => `M${across(x).toFixed(1)} ${place(y).toFixed(1)}h0`).join("");
    const flat = ({ p }) => !p.shape.includes("x");
    image.append(svg("path", { class: "dots flat", d: dots(positive.filter(flat)) }));
    image.append(svg("path", { class: "dots", d: dots(positive.filter((q) => !flat(q))) }));
    if (lost.length) {
      const label = svg("text", { x: left - 6, y: height - under - 5, class: "axis" });
      label.textContent = lost.every(({ p }) => p.grad === "not finite") ? "NaN" : "none";
      image.append(label, svg("path", { class: "lost",
        d: lost.map(({ x }) => `M${across(x).toFixed(1)} ${height - under - 14}v10`).join("") }));
    }
    image.append(svg("circle", { class: "cursor", r: 5, cx: -20, cy: -20 }));
    image.addEventListener("pointermove", (event) => {
      const box = image.getBoundingClientRect();
      look(nearest(event.clientX - box.left, event.clientY - box.top));
      const { p } = points[at];
      tip(`${p.name}: ${describe(p)}`, event.clientX, event.clientY);
    });
    image.addEventListener("pointerleave", () => tip(""));
    image.addEventListener("click", () => at >= 0 && show(points[at].p));
    image.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
      if (step) {
        event.preventDefault();
        look(Math.min(Math.max(at + step, 0), points.length - 1));
        const { p } = points[at];
        said.textContent = `${p.name}: ${describe(p)}`;
      } else if (event.key === "Enter" && at >= 0) show(points[at].p);
    });
    image.addEventListener("blur", () => { said.textContent = ""; });
    figure.insertBefore(image, said.parentNode ? said : null);
  }
  const describe = (p) => none && none(p) ? p.grad : short(value(p)) || "not measured";
  function nearest(x, y) {
    let best = 0, least = Infinity;
    for (const point of points) {
      const isLost = none && none(point.p);
      if (!(point.y > 0) && !isLost) continue;
      const vertical = isLost ? height - under - 9 : place(point.y);
      const far = (across(point.x) - x) ** 2 + ((vertical - y) / 3) ** 2;
      if (far < least) { least = far; best = point.x; }
    }
    return best;
  }
  function look(x) {
    at = x;
    const cursor = figure.querySelector(".cursor");
    cursor.setAttribute("cx", across(x));
    cursor.setAttribute("cy", points[x].y > 0 ? place(points[x].y) : height - under - 9);
  }
  figure.append(said);
  whenWide(draw);
}

// Drawn once everything has its place, and again when there is more room or less.
const redraws = [];
let wide = 0;
const whenWide = (draw) => redraws.push(draw);
function drawAll() {
  wide = document.documentElement.clientWidth;
  redraws.forEach((draw) => draw());
}
addEventListener("resize", () => {
  if (document.documentElement.clientWidth !== wide) drawAll();
});

// The modules in which a model falls apart, where they stand among these rows. The longest are
// taken apart for as long as that makes no more of them than there is room for.
function modulesAlong(rows) {
  let root = MODULES[0];
  while (root.children.length === 1 && !root.parameters.length) root = root.children[0];
  let parts = root.children.filter((m) => m.first != null);
  while (parts.length && parts.length < 6) {
    const longest = parts.reduce((a, b) => b.last - b.first > a.last - a.first ? b : a);
    const within = longest.children.filter((m) => m.first != null);
    if (within.length < 2 || parts.length + within.length > 50 || longest.parameters.length) break;
    parts = parts.flatMap((m) => m === longest ? within : [m]);
  }
  const position = new Map(rows.map((p, n) => [p.index, n]));
  const above = root.name ? root.name.length + 1 : 0;
  return parts.map((m) => ({ label: m.name.slice(above), from: position.get(m.first), to: position.get(m.last) + 1 }));
}

// Their names below a picture, each where it begins, as far as it fits before the next.
function labelModules(image, parts, across, top, width) {
  let free = 0;
  for (const { label, from, to } of parts) {
    const a = across(from), room = (Math.min(across(to), width) - Math.max(a, free)) / 6.6;
    image.append(svg("path", { class: "rule", d: `M${a.toFixed(1)} ${top}v8` }));
    if (a < free || room < Math.min(label.length, 3) + .5) continue;
    const text = svg("text", { class: "part", x: a + 3, y: top + 14 });
    text.textContent = label.length > room ? `${label.slice(0, Math.max(Math.floor(room) - 1, 1))}…` : label;
    image.append(text);
    free = a + 3 + text.textContent.length * 6.6;
  }
}

// All parameters side by side, as wide as the root of their size, colored by state, and ties as
// arcs over them.
function orderPicture(host) {
  const rows = P.filter((p) => p.kind !== "buffer");
  if (!rows.length) return;
  const tied = rows.filter((p) => p.aliases.length);
  const sizes = rows.map((p) => Math.sqrt(Math.max(p.elements || 1, 1)));
  const total = sizes.reduce((a, b) => a + b, 0);
  const edges = [0];
  for (const size of sizes) edges.push(edges.at(-1) + size / total);
  const position = new Map(rows.map((p, n) => [p.index, n]));
  const figure = element("figure", { class: "chart" });
  host.append(figure);

  function draw() {
    figure.replaceChildren();
    const width = Math.max(figure.clientWidth, 260), bar = 34;
    const above = tied.length ? 66 : 0;
    const parts = modulesAlong(rows);
    const height = above + bar + (parts.length ? 22 : 0);
    const count = (state) => rows.filter((p) => p.state === state).length;
    const words = STATES.filter(count)
      .map((state) => `${whole(count(state))} ${STATE_WORDS[state]}`).join(", ");
    const image = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
      "aria-label": `${plural(rows.length, "parameter")} in their order: ${words}; `
        + plural(tied.length, "tied group") });
    const paths = {};
    rows.forEach((p, n) => {
      const x = edges[n] * width, w = Math.max((edges[n + 1] - edges[n]) * width, .35);
      const gap = w > 3 ? .8 : 0;
      paths[p.state] = (paths[p.state] || "")
        + `M${x.toFixed(1)} ${above}h${(w - gap).toFixed(2)}v${bar}h${(gap - w).toFixed(2)}z`;
    });
    image.append(hatch("hatch-frozen", 6, "M0 6L6 0"), hatch("hatch-dead", 5, "M2.5 0V5"), hatch("hatch-wild", 6, "M0 0L6 6"));
    for (const [state, d] of Object.entries(paths)) {
      image.append(svg("path", { class: `bar ${state}`, d }));
      if (state === "frozen" || state === "dead" || state === "wild") {
        image.append(svg("path", { fill: `url(#hatch-${state})`, d }));
      }
    }
    for (const p of tied.slice(0, 300)) {
      const from = (edges[position.get(p.index)] + edges[position.get(p.index) + 1]) / 2 * width;
      for (const [name, before] of p.aliases.slice(0, 40)) {
        // A second name stands where it was registered: before the row of that number.
        const to = edges[rowAfter(before)] * width - 1;
        const high = above - 4 - Math.min(above - 10, 8 + Math.abs(to - from) / width * above);
        const arc = svg("path", { class: "arc", d: `M${from.toFixed(1)} ${above}Q${((from + to) / 2).toFixed(1)} ${(2 * high - above).toFixed(1)} ${to.toFixed(1)} ${above}` });
        arc.append(svg("title"));
        arc.firstChild.textContent = `${p.name} = ${name}`;
        image.append(arc, svg("circle", { class: "end", cx: to.toFixed(1), cy: above, r: 2.5 }));
      }
    }
    labelModules(image, parts, (n) => edges[n] * width, above + bar, width);
    const at = (event) => {
      const x = (event.clientX - image.getBoundingClientRect().left) / width;
      let n = edges.findIndex((edge) => edge > x) - 1;
      return rows[n < 0 ? rows.length - 1 : n];
    };
    image.addEventListener("pointermove", (event) => {
      const p = at(event);
      tip(`${p.name}  ${p.shape}  ${STATE_WORDS[p.state]}`, event.clientX, event.clientY);
    });
    image.addEventListener("pointerleave", () => tip(""));
    image.addEventListener("click", (event) => show(at(event)));
    figure.append(image, legend());
  }
  // The first of the rows that was registered at a number or after it.
  function rowAfter(number) {
    let from = 0, to = rows.length;
    while (from < to) {
      const middle = (from + to) >> 1;
      if (rows[middle].index < number) from = middle + 1;
      else to = middle;
    }
    return from;
  }
  function legend() {
    const list = element("ul", { class: "legend" });
    for (const state of STATES) {
      if (rows.some((p) => p.state === state)) {
        list.append(element("li", {}, element("span", { class: `swatch ${state}` }), STATE_WORDS[state]));
      }
    }
    if (tied.length) list.append(element("li", {}, element("span", { class: "swatch arc" }), "tied names"));
    return list;
  }
  const hatch = (id, size, d) => svg("pattern", { id, width: size, height: size, patternUnits: "userSpaceOnUse" },
    svg("path", { d, class: "hatch" }));
  whenWide(draw);
}
