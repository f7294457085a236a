// Uses the page as a reader would, and writes what does not hold into its title. `scripts/page` puts
// it at the end of a page with two circuits, the first of which has statistics and prompts.

const seen = (selector) => all(selector).filter((part) => !part.classList.contains("hidden"));
const press = (key, target = document.body) => target.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
const slide = (id, value) => { $(id).value = value; $(id).dispatchEvent(new Event("input")); };
const type = (text) => { $("search").value = text; $("search").dispatchEvent(new Event("input")); };
const has = (text) => $("panel").textContent.includes(text);
const box = () => document.querySelector("#drawing svg").getAttribute("viewBox").split(" ").map(Number);

const circuit = DATA.circuits[0].circuit;
const names = circuit.nodes.map((node) => `${node.site}[${node.index}]`);
const edge = [...circuit.edges].sort((a, b) => b.effect - a.effect)[0];
const group = (name) => document.querySelector(`#scene .node[data-node="${name}"]`);

check("every node is drawn", all("#scene .node").length === circuit.nodes.length);
check("every edge is drawn", all("#scene .edge").length === circuit.edges.length);
check("the held-out loss is shown", has(circuit.losses.test.circuit.toFixed(3)));
check("the description is shown", has(circuit.task.description));

// Clicks and the panel.
click(group(edge.to));
check("a click selects", group(edge.to).classList.contains("selected") && $("panel").querySelector("h2").textContent === edge.to);
check("what it reads is listed", all("#panel a.node-link").some((link) => link.textContent === edge.from));
check("other nodes fade", all("#scene .node.faded").length > 0 && !group(edge.from).classList.contains("faded"));
check("a histogram is drawn", all("#panel .bars rect").length >= 64);
check("snippets are shown", all("#panel .code .here").length > 2);
click(all("#panel a.node-link").find((link) => link.textContent === edge.from));
check("a link selects", $("panel").querySelector("h2").textContent === edge.from);

// Up- and downstream, against a search of its own.
const downstream = new Set([edge.from]);
for (let grown = true; grown; ) {
  grown = false;
  const add = (to) => { if (!downstream.has(to)) { downstream.add(to); grown = true; } };
  for (const { from, to } of circuit.edges) if (downstream.has(from)) add(to);
  for (const name of [...downstream]) {
    const at = names.indexOf(name);
    if (!/resid_delta/.test(name)) continue;
    names.slice(at + 1).filter((other) => /act_in|final_resid/.test(other) && other.endsWith(`[${circuit.nodes[at].index}]`)).forEach(add);
  }
}
press("d");
check("downstream shows what follows", seen("#scene .node").map((node) => node.dataset.node).sort().join() === [...downstream].sort().join());
press("d");
press("u");
check("upstream shows less than all", seen("#scene .node").length < names.length || names.length < 4);
press("Escape");
check("Escape shows everything", seen("#scene .node").length === names.length && !document.querySelector(".selected"));

// Thresholds.
slide("edge-threshold", 50);
const least = Number($("edge-least").textContent.replace("−", "-"));
check("half the edges remain", Math.abs(seen("#scene .edge").length - circuit.edges.length / 2) <= 1 + circuit.edges.filter((edge) => Math.abs(edge.effect).toFixed(3) === least.toFixed(3)).length);
slide("edge-threshold", 0);
slide("node-threshold", 50);
check("half the nodes remain", seen("#scene .node").length < names.length && seen("#scene .node").length >= names.length / 2 - 1);
slide("node-threshold", 0);
check("thresholds go back", seen("#scene .node").length === names.length && seen("#scene .edge").length === circuit.edges.length);

// Search.
type(edge.to);
check("search finds a node", group(edge.to).classList.contains("hit") && $("hits").textContent.startsWith("1 node"));
type("no such thing");
check("search finds nothing", all(".hit").length === 0 && $("hits").textContent.startsWith("0 nodes, 0"));
type("");

// Zoom, focus, theme.
check("text can be read at first", 11 * document.querySelector("#drawing svg").getScreenCTM().a >= 8);
press("0");
const whole = box();
press("+");
check("+ comes nearer", box()[2] < whole[2]);
press("0");
check("0 shows all", box().join() === whole.join());
$("drawing").dispatchEvent(new WheelEvent("wheel", { deltaY: -100, clientX: 100, clientY: 100, bubbles: true, cancelable: true }));
check("the wheel comes nearer", box()[2] < whole[2]);
press("0");
press("ArrowUp");
check("arrows focus a node", document.activeElement.classList.contains("node"));
const focused = document.activeElement;
press("Enter", focused);
check("Enter selects it", focused.classList.contains("selected"));
press("Escape");
const light = getComputedStyle(document.body).backgroundColor;
press("t");
check("t turns the light off", getComputedStyle(document.body).backgroundColor !== light);
press("t");

// Other circuits.
press("n");
const other = DATA.circuits[1].circuit;
check("n shows the next circuit", all("#scene .node").length === other.nodes.length && has(other.task.description));
const drawnText = all("#scene text.label").map((label) => label.textContent);
check("labels are drawn", Object.values(other.annotations.labels).every((label) => drawnText.includes(label)));
check("groups are framed", all("#scene .frame-of-group").length === Object.values(other.annotations.groups).flat().length);
check("groups are listed", Object.keys(other.annotations.groups).every(has));
type("single quote");
check("search finds labels", all("#scene .node.hit").length === 1);
type("");
press("p");
check("p goes back", all("#scene .node").length === names.length);
finish();
