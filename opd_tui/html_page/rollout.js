"use strict";
const about = JSON.parse(document.getElementById("about").textContent);
const sections = [...document.querySelectorAll("section")].map((element) => ({
  element,
  data: JSON.parse(element.querySelector(".data").textContent),
  tokens: [...element.querySelectorAll(".t")],
}));
const sectionOf = new Map(sections.map((one) => [one.element, one]));
const nodes = [...document.querySelectorAll(".n[data-t]")];
const details = document.getElementById("details");
const chosen = (name) => document.getElementById(name).value;
const needs = (metric) => about.metrics[metric][1];

function colouring(section) {
  const metric = chosen("metric");
  const teacher = needs(metric) === "nothing" ? 0 : Number(chosen("teacher"));
  return section.data.values[metric][teacher][needs(metric) === "objective" ? Number(chosen("objective")) : 0];
}

// The same seven steps as in the explorer.
function step(value, { low, high }) {
  if (value === null || value === undefined || high <= low) return null;
  return Math.min(Math.floor(Math.min(Math.max((value - low) / (high - low), 0), 1) * 7), 6);
}
const mark = (at, diverging) => (diverging ? (at === 3 ? "·" : at > 3 ? "+" : "−") : "▁▂▃▄▅▆▇"[at]);

function number(value, digits = 3, signed = false) {
  if (value === null || value === undefined) return "–";
  const text = Math.abs(value).toFixed(digits);
  return (value < 0 && Number(text) !== 0 ? "−" : signed ? "+" : "") + text;
}

const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

function paint() {
  const metric = chosen("metric");
  const [label, , diverging, meaning] = about.metrics[metric];
  document.getElementById("meaning").textContent = `${label}: ${meaning}`;
  document.querySelectorAll("#legend .step").forEach((one, at) => {
    one.className = `step ${diverging ? "d" : "q"}${at}`;
    one.textContent = mark(at, diverging);
  });
  const first = sections.length && colouring(sections[0]);
  const same = sections.every((one) => colouring(one).low === first.low && colouring(one).high === first.high);
  document.getElementById("low").textContent = same && first ? number(first.low, 2, diverging) : "low";
  document.getElementById("high").textContent = same && first ? number(first.high, 2, diverging) : "high";
  for (const section of sections) {
    const found = colouring(section);
    const unsure = new Set(found.unsure);
    for (const token of section.tokens) {
      const t = Number(token.dataset.t);
      const at = step(found.v[t], found);
      const isNode = token.hasAttribute("role");
      token.className = "t" + (isNode ? " n" : "") + (at === null ? "" : unsure.has(t) ? " hollow" : ` ${diverging ? "d" : "q"}${at}`);
      if (at === null) delete token.dataset.mark;
      else token.dataset.mark = mark(at, diverging);
      if (isNode) {
        const node = section.data.nodes[t];
        const says = at === null ? "no estimate" : `${label} ${number(found.v[t], 2, diverging)}${unsure.has(t) ? ", sign uncertain" : ""}`;
        token.setAttribute("aria-label", `${section.data.label[t]}, node ${node.number} of ${Object.keys(section.data.nodes).length}, ${says}`);
      }
    }
  }
}

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text; // never markup
  if (className) made.className = className;
  return made;
}

function table(caption, head, rows) {
  const made = element("table");
  made.append(element("caption", caption));
  const top = element("tr");
  for (const title of head) {
    const cell = element("th", title);
    cell.scope = "col";
    top.append(cell);
  }
  const lines = rows.map(([className, ...cells]) => {
    const line = element("tr", undefined, className);
    cells.forEach((cell) => line.append(element("td", cell)));
    return line;
  });
  made.append(element("thead"), element("tbody"));
  made.tHead.append(top);
  made.tBodies[0].append(...lines);
  return made;
}

function show(token) {
  const section = sectionOf.get(token.closest("section"));
  const { data } = section;
  const t = Number(token.dataset.t);
  const m = Number(chosen("teacher"));
  const made = [element("h3", `token ${t}  ${data.label[t]}  id ${data.id[t]}`)];
  const under = (metric) => data.values[metric][needs(metric) === "nothing" ? 0 : m][0].v[t];
  const facts = ["student-logprob", "log-ratio", "kl-student-teacher", "kl-teacher-student", "js", "student-entropy", "teacher-entropy"];
  made.push(table(`under ${about.teachers[m]}`, ["", "nat"], facts.map((key) => ["", about.metrics[key][0], number(under(key))])));
  const node = data.nodes[t];
  if (node) {
    const teacher = node.teachers[m];
    made.push(element("p", `node ${node.number}: ${node.kept} kept children, success range ${number(node.range, 2)}, V ${number(node.value, 2)}, advantage ${number(teacher.advantage, 2, true)}`));
    if (node.reason) made.push(element("p", node.reason));
    if (teacher.late) made.push(element("p", "This teacher did not nominate this node."));
    made.push(table("objectives", ["", "alignment", "gain", "± se", "P(+)"],
      teacher.scores.map(([alignment, gain, se, positive], o) => [o === Number(chosen("objective")) ? "taken" : "", about.objectives[o], number(alignment, 2, true), number(gain, 3, true), number(se), number(positive, 2)])));
    made.push(table("children", ["", "p_student", "p_teacher", "p_succ", "95 %", "n"],
      node.children.map(([label, taken, kept, student, success, low, high, n], k) => [taken ? "taken" : "", label + (kept ? "" : " (few counts)"), number(student, 2), number(teacher.p[k], 2), number(success, 2), success === null ? "–" : `${number(low, 2)}–${number(high, 2)}`, n === null ? "exact" : compact.format(n)])));
  }
  details.replaceChildren(...made);
  document.querySelectorAll(".t.on").forEach((one) => one.classList.remove("on"));
  token.classList.add("on");
}

let current = 0; // the node that the Tab key comes to
let reading = false; // Enter was pressed: pointers leave the details alone

function go(to) {
  if (!nodes.length) return;
  nodes[current].tabIndex = -1;
  current = Math.min(Math.max(to, 0), nodes.length - 1);
  nodes[current].tabIndex = 0;
  nodes[current].focus();
}

document.addEventListener("pointerover", (event) => {
  const token = event.target.closest(".t");
  if (token && !reading) show(token);
});
document.addEventListener("click", (event) => {
  const token = event.target.closest(".t");
  if (!token) return;
  reading = false;
  if (nodes.includes(token)) go(nodes.indexOf(token));
  show(token);
});
document.addEventListener("focusin", (event) => {
  if (nodes.includes(event.target)) {
    reading = false;
    show(event.target);
  }
});
document.addEventListener("keydown", (event) => {
  const onNode = nodes.includes(document.activeElement);
  const steps = { ArrowRight: current + 1, ArrowDown: current + 1, ArrowLeft: current - 1, ArrowUp: current - 1, Home: 0, End: nodes.length - 1 };
  if (onNode && event.key in steps) go(steps[event.key]);
  else if (onNode && (event.key === "Enter" || event.key === " ")) {
    reading = true;
    details.focus();
  } else if (event.key === "Escape" && nodes.length) {
    reading = false;
    go(current);
  } else return;
  event.preventDefault();
});
for (const name of ["metric", "teacher", "objective"]) {
  document.getElementById(name).addEventListener("change", () => {
    const on = document.querySelector(".t.on");
    paint();
    if (on) show(on);
  });
}
if (nodes.length) nodes[0].tabIndex = 0;
paint();
