"use strict";
// What the checks of every page share; `scripts/page` puts it before them.
const failed = [];
let checks = 0;
const check = (name, holds) => { checks += 1; if (!holds) failed.push(name); };
addEventListener("error", (event) => failed.push(`error: ${event.message}`));
addEventListener("securitypolicyviolation", (event) => failed.push(`request: ${event.blockedURI}`));

const all = (selector) => [...document.querySelectorAll(selector)];
const click = (target) => target.dispatchEvent(new MouseEvent("click", { bubbles: true }));

// Says in the page's title whether all of it holds, for `scripts/page` to read.
function finish() {
  check("nothing was requested", performance.getEntriesByType("resource").length === 0);
  document.title = failed.length ? `FAILED ${failed.join("; ")}` : `passed ${checks} checks`;
}
