// Uses a run's report as a reader would, and writes what does not hold into its title. `scripts/page`
// puts it at the end of the report of a run with three logged steps and three circuits.
const text = (selector) => all(selector).map((part) => part.textContent).join("\n");

check("facts are shown", text("#run .facts").includes("1,000") && text("#run .facts").includes("1.500 nats per token"));
check("settings are shown", text("#run pre").includes("steps = 1000"));

// The loss falls from 4 to 1 while the step grows from 100 to 1,000.
const loss = all("figure").find((figure) => figure.textContent.startsWith("loss"));
const points = (figure) => figure.querySelector("svg .curve").getAttribute("d").match(/[\d.]+ [\d.]+/g).map((pair) => pair.split(" ").map(Number));
const linear = points(loss);
const share = (points, axis) => (points[1][axis] - points[0][axis]) / (points[2][axis] - points[0][axis]);
check("three points are drawn", linear.length === 3);
check("steps go from left to right in proportion", Math.abs(share(linear, 0) - (400 - 100) / 900) < 0.01);
check("losses are in proportion", Math.abs(share(linear, 1) - (4 - 2) / 3) < 0.01 && linear[0][1] < linear[2][1]);
click(loss.querySelector("button"));
check("logarithmic axes are in proportion", Math.abs(share(points(loss), 1) - Math.log(4 / 2) / Math.log(4)) < 0.01);
click(loss.querySelector("button"));
check("the legend names both losses", text("figure .legend").includes("validation_loss"));
const area = loss.querySelector("div svg"), box = area.getBoundingClientRect();
area.dispatchEvent(new PointerEvent("pointermove", { clientX: box.right - 20, clientY: box.top + 20, bubbles: true }));
check("the pointer reads values", loss.querySelector(".reading").textContent === "step 1,000: loss 1, validation_loss 1.5");
check("a bridge's error has a chart and a row", text("figcaption").includes("normalised errors") && text("#run td").includes("nmse_enc"));
check("ticks are 1, 2 or 5 times powers of ten", ticks(0, 1, 5).join() === [0, 0.2, 0.4, 0.6000000000000001, 0.8, 1].join() && ticks(3, 44, 5).join() === "10,20,30,40" && ticks(-4, 4, 4).join() === "-4,-2,0,2,4");

const rows = all("#run .choice");
check("circuits are listed", rows.length === 3 && DATA.circuits.length === 3);
click(rows[2]);
check("a row shows its circuit", $("circuits").value === "2" && rows[2].textContent.includes(DATA.circuits[2].name));
check("the circuit is drawn", all("#scene .node").length === DATA.circuits[2].circuit.nodes.length);
check("tasks are listed", all("#run table").some((table) => table.textContent.includes("single_double_quote") && table.textContent.includes(" %")));
check("parameters are listed", text("#run td").includes("transformer.h.0.mlp.c_fc.weight"));
finish();
