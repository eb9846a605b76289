// The frame: log-in, navigation, which page is shown.

import { forget, logIn, logOut, recall, session, whenLoggedOut } from "./api.js";
import { badge, errorBox, h, put, show } from "./dom.js";
import { overview } from "./overview.js";
import { queries } from "./queries.js";
import { history } from "./history.js";
import { statement } from "./statement.js";
import { submitted } from "./submitted.js";
import { catalog } from "./catalog.js";
import { zookeeper } from "./zookeeper.js";
import { settings } from "./settings.js";
import { sql } from "./sql.js";

const PAGES = [
  ["overview", "Overview", overview],
  ["sql", "SQL", sql],
  ["queries", "Running", queries],
  ["history", "History", history],
  ["submitted", "Submitted", submitted],
  ["catalog", "Catalog", catalog],
  ["zookeeper", "ZooKeeper", zookeeper],
  ["settings", "Settings", settings],
  ["statement", undefined, statement, "history"],
];

const app = document.getElementById("app");
let leave = [];

// A part of an address; one that nothing encodes to is what it says.
function decoded(part) {
  try { return decodeURIComponent(part); } catch { return part; }
}

// For an address that is no page's.
function nowhere(main) {
  put(main, h("div", { class: "head" }, h("h1", {}, "No such page")),
    h("p", { class: "empty" }, "There is no page at this address. ", h("a", { href: "#/overview" }, "Overview")));
}

// A page: page(main, { path, query, onLeave }).
async function route() {
  if (!session.user) return;
  const [path, search] = location.hash.replace(/^#\/?/, "").split("?");
  const parts = path.split("/").filter(Boolean).map(decoded);
  const page = parts.length ? PAGES.find(([key]) => key === parts[0]) ?? [undefined, "No such page", nowhere] : PAGES[0];
  for (const step of leave.splice(0)) step();
  for (const link of document.querySelectorAll(".side nav a")) {
    const current = link.dataset.page === (page[3] ?? page[0]);
    if (current) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
    if (current) link.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  document.title = `${page[1] ?? "Statement"} – Oribi`;
  const main = show(document.getElementById("main"));
  let here = true;
  leave.push(() => { here = false; });
  const context = {
    path: parts.slice(1),
    query: new URLSearchParams(search ?? ""),
    onLeave: (step) => (here ? leave.push(step) : step()),
    isHere: () => here,
  };
  try {
    await page[2](main, context);
  } catch (error) {
    if (here && error.name !== "AbortError") main.append(errorBox(error));
  }
}

function frame() {
  const out = async () => {
    await logOut().catch(() => {});
    forget();
    logInPage();
  };
  show(app, h("div", { class: "frame" },
    h("div", { class: "side" },
      h("a", { class: "brand", href: "#/overview", "aria-label": "Oribi, overview" }, h("img", { src: "/assets/icon.svg", alt: "" }), "Oribi"),
      h("nav", { "aria-label": "Pages" }, PAGES.filter(([, title]) => title).map(([key, title]) =>
        h("a", { href: `#/${key}`, "data-page": key }, title))),
      h("div", { class: "who" },
        h("span", {}, session.user, h("span", { class: "extra" }, ` in ${session.database}`)),
        h("span", { class: "extra" }, `${session.daemon}, version ${session.version}`),
        session.mode === "read_only" && badge("read-only"),
        h("button", { type: "button", onclick: out }, "Log out"))),
    h("main", { id: "main", tabindex: -1 })));
  route();
}

function logInPage(error) {
  document.title = "Log in – Oribi";
  for (const step of leave.splice(0)) step();
  const field = (label, props) => h("label", { class: "field" }, label, h("input", props));
  const told = h("div", {});
  const enter = async (event) => {
    event.preventDefault();
    const form = event.target;
    const button = form.querySelector("button");
    button.disabled = true;
    try {
      await logIn(form.elements.user.value, form.elements.password.value, form.elements.database.value);
      frame();
    } catch (failure) {
      show(told, errorBox(failure));
      button.disabled = false;
      form.elements.password.focus();
    }
  };
  show(app, h("main", { class: "login", id: "main", tabindex: -1 }, h("form", { onsubmit: enter },
    h("h1", { class: "brand" }, h("img", { src: "/assets/icon.svg", alt: "" }), "Oribi"),
    told,
    field("User", { type: "text", name: "user", value: "oribi", autocomplete: "username", required: true, autocapitalize: "none", spellcheck: "false" }),
    field("Password", { type: "password", name: "password", autocomplete: "current-password" }),
    field("Database", { type: "text", name: "database", value: "oribi", autocapitalize: "none", spellcheck: "false" }),
    h("button", { class: "main", type: "submit" }, "Log in"),
    h("p", { class: "small faint" }, "A role of the database, as for psql. Where the host rules trust your address, no password is needed."))));
  if (error) show(told, errorBox(error));
  app.querySelector("input").focus();
}

whenLoggedOut((error) => { forget(); logInPage(error); });
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  document.getElementById("main")?.focus();
});
addEventListener("hashchange", () => {
  route().then(() => { if (session.user) document.getElementById("main").focus({ preventScroll: true }); });
});

recall().then((known) => (known ? frame() : logInPage()), (error) => logInPage(error));
