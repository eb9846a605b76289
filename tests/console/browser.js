// The console's pages in a real Chromium. Its argument is the console's address; the daemon trusts this
// machine. With a second argument, a directory, it leaves pictures there.
//
// ORIBI_TEST_CHROMIUM names another browser than the `chromium` on the PATH.

const assert = require("node:assert/strict");
const fs = require("node:fs");
const { execFileSync } = require("node:child_process");
const { chromium } = require("playwright-core");

const [address, pictures] = process.argv.slice(2);
const executable = process.env.ORIBI_TEST_CHROMIUM
  ?? execFileSync("sh", ["-c", "command -v chromium"], { encoding: "utf8" }).trim();
const PATIENCE = 60_000;
// Of a page with 10,000 statements behind it, in milliseconds: some hundred where nothing is optimised.
const QUICK = 5_000;

// Roles that somebody who cannot see has to know by name.
const NAMED = ["button", "link", "textbox", "searchbox", "combobox", "checkbox", "tab", "progressbar", "img", "image", "region", "navigation", "table"];

let browser;
const trouble = [];

async function newPage(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  page.on("console", (message) => { if (["error", "warning"].includes(message.type())) trouble.push(`console: ${message.text()} ${message.location().url}`); });
  page.on("pageerror", (error) => trouble.push(`page: ${error.stack}`));
  page.on("request", (request) => {
    const { protocol, origin } = new URL(request.url());
    if (protocol !== "data:" && protocol !== "blob:" && origin !== address) trouble.push(`outside: ${request.url()}`);
  });
  return page;
}

async function logIn(page) {
  await page.goto(address);
  await page.getByLabel("User").waitFor();
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("heading", { name: "Cluster" }).waitFor();
}

// Nothing without a name that needs one, and nothing wider than the page.
async function check(page, what) {
  const session = await page.context().newCDPSession(page);
  const { nodes } = await session.send("Accessibility.getFullAXTree");
  await session.detach();
  const nameless = nodes.filter((node) => !node.ignored && NAMED.includes(node.role?.value) && !node.name?.value?.trim());
  assert.deepEqual(nameless.map((node) => `${node.role.value} ${JSON.stringify(node.properties?.slice(0, 3))}`), [], `${what}: controls without a name`);
  // A phone's own window grows with what is too wide for it.
  const wide = await page.evaluate(() => Math.max(document.documentElement.scrollWidth, innerWidth));
  const { width } = page.viewportSize();
  assert.ok(wide <= width, `${what}: ${wide} px wide in a window of ${width}`);
  const ids = await page.evaluate(() => { const all = [...document.querySelectorAll("[id]")].map((element) => element.id); return all.filter((id, at) => all.indexOf(id) !== at); });
  assert.deepEqual(ids, [], `${what}: an id twice`);
}

async function picture(page, name) {
  if (!pictures) return;
  fs.mkdirSync(pictures, { recursive: true });
  await page.screenshot({ path: `${pictures}/${name}.png` });
}

async function go(page, title, heading = title) {
  await page.getByRole("navigation", { name: "Pages" }).getByRole("link", { name: title, exact: true }).click();
  await page.getByRole("heading", { level: 1, name: heading }).waitFor();
  await page.waitForFunction(() => ![...document.querySelectorAll(".empty")].some((element) => /^(Asking|Reading)/.test(element.textContent)));
}

async function runSql(page, sql) {
  await go(page, "SQL");
  await page.getByRole("textbox", { name: "SQL" }).fill(sql);
  // What was said of the one before is no answer.
  await page.locator("main p[role=status]").evaluate((status) => { status.textContent = ""; });
  await page.getByRole("button", { name: "Run", exact: true }).click();
  await page.getByText(/^Done in/).waitFor();
}

// All pages are to be seen without scrolling for them, each in a place of its own.
async function everyLinkIsSeen(page, what) {
  const { width, height } = page.viewportSize();
  const links = page.getByRole("navigation", { name: "Pages" }).getByRole("link");
  assert.equal(await links.count(), 8, what);
  const nav = await page.getByRole("navigation", { name: "Pages" }).boundingBox();
  assert.ok(nav.y + nav.height < height / 2, `${what}: the pages leave room for one of them`);
  for (const link of await links.all()) {
    const box = await link.boundingBox();
    const seen = box.x >= 0 && box.x + box.width <= width && box.y >= 0 && box.y + box.height <= height;
    assert.ok(seen, `${what}: ${await link.textContent()} at ${JSON.stringify(box)} of ${width} by ${height}`);
    assert.ok(box.height >= 30, `${what}: ${await link.textContent()} is ${box.height} px high`);
  }
}

async function everyPage(page, what) {
  for (const [title, heading] of [["Overview", "Cluster"], ["SQL"], ["Running", "Running statements"], ["History"], ["Submitted", "Submitted queries"], ["Catalog"], ["ZooKeeper"], ["Settings"]]) {
    await go(page, title, heading);
    await check(page, `${what}, ${title}`);
    await picture(page, `${what}-${title.toLowerCase()}`);
  }
}

async function statements(page) {
  await runSql(page, "CREATE TABLE herds AS SELECT i AS id, 'herd ' || i % 7 AS name, i % 31 AS animals FROM generate_series(1, 5000) AS t(i); INSERT INTO herds VALUES (0, '<img src=x onerror=alert(1)>', NULL)");
  await page.getByText("INSERT 0 1").waitFor();
  await runSql(page, "SELECT name, count(*) AS herds, sum(animals) AS animals FROM herds GROUP BY name ORDER BY name");
  await page.getByText("8 rows", { exact: true }).waitFor();
  const grid = page.getByRole("region", { name: "Result" });
  await grid.getByRole("cell", { name: "herd 6" }).waitFor();
  assert.equal(await grid.getByRole("cell", { name: "<img src=x onerror=alert(1)>" }).count(), 1, "data is text");
  assert.equal(await page.locator("main img").count(), 0);
  await check(page, "result");
  await picture(page, "sql");
  for (const kind of ["Bars", "Lines", "Points"]) {
    await page.getByRole("tab", { name: kind }).click();
    await page.getByRole("img", { name: /against/ }).waitFor();
    await check(page, kind);
  }
  await page.getByRole("tab", { name: "Bars" }).click();
  await picture(page, "chart");
  for (const format of ["csv", "Parquet"]) {
    const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: `Download ${format}` }).click()]);
    const file = fs.readFileSync(await download.path());
    if (format === "csv") assert.match(file.toString(), /^name,herds,animals\n/);
    else assert.equal(file.subarray(0, 4).toString() + file.subarray(-4).toString(), "PAR1PAR1");
  }
  await runSql(page, "SET TimeZone = 'Europe/Vienna'; SELECT 'far away' AS place");
  await page.getByText("1 row", { exact: true }).waitFor();
  await page.getByRole("textbox", { name: "SQL" }).fill("SELECT nothing FROM herds");
  await page.keyboard.press("Control+Enter");
  await page.getByRole("alert").getByText("42703").waitFor();
  assert.equal(await page.getByRole("button", { name: /^Show more/ }).count(), 0, "there are no more rows");
  // Where it is, and the cursor there.
  const place = async (text, run, line) => {
    await page.getByRole("textbox", { name: "SQL" }).fill(text);
    await run();
    await page.getByRole("alert").getByText(line, { exact: false }).waitFor();
    const [shown, cursor] = await page.evaluate(() => [document.querySelector(".error pre").textContent, document.getElementById("sql-text").selectionStart]);
    assert.equal(shown, `${line}\n${" ".repeat(line.indexOf("missing"))}^`);
    assert.equal(cursor, text.indexOf("missing"));
  };
  await place("\n SELECT 'größe', '🦌',\n  missing FROM herds", () => page.keyboard.press("Control+Enter"), "LINE 2:   missing FROM herds");
  await place("SELECT missing FROM herds", () => page.getByRole("button", { name: "Explain", exact: true }).click(), "LINE 1: SELECT missing FROM herds");
  // Of several statements only the first one would be explained, and the others run.
  for (const [text, several] of [["SELECT 1; SELECT 2", true], ["SELECT E'\\';' AS a", true], ["SELECT ';' AS a;", false]]) {
    await page.getByRole("textbox", { name: "SQL" }).fill(text);
    await page.getByRole("button", { name: "Explain", exact: true }).click();
    if (several) await page.getByRole("alert").getByText("42601").waitFor();
    else await page.getByRole("list", { name: "Steps of the plan" }).waitFor();
  }
  await page.getByRole("textbox", { name: "SQL" }).fill("SELECT name, count(*) FROM herds GROUP BY 1");
  await page.getByRole("button", { name: "Explain", exact: true }).click();
  await page.getByRole("list", { name: "Steps of the plan" }).getByText("AggregateExec").first().waitFor();
}

// A plan of many steps below each other.
async function plan(page, what) {
  await go(page, "SQL");
  const joined = [1, 2, 3, 4, 5, 6].map((at) => `JOIN (SELECT id, count(*) AS n FROM herds GROUP BY id) h${at} ON h${at}.id = h.id`);
  await page.getByRole("textbox", { name: "SQL" }).fill(`SELECT h.name, count(*) FROM herds h ${joined.join(" ")} GROUP BY 1 ORDER BY 2`);
  await page.getByRole("button", { name: "Explain", exact: true }).click();
  await page.getByRole("list", { name: "Steps of the plan" }).getByText("HashJoinExec").nth(5).waitFor();
  await check(page, `${what}, plan`);
  await picture(page, `${what}-plan`);
}

// Its letters are as large as elsewhere, however narrow the window is.
async function smallChart(page) {
  await runSql(page, "SELECT name, count(*) AS herds FROM herds GROUP BY name ORDER BY name");
  await page.getByRole("tab", { name: "Bars" }).click();
  await page.getByRole("img", { name: /against/ }).waitFor();
  await page.waitForFunction(() => document.querySelector(".chart").getAttribute("viewBox").split(" ")[2] < 400);
  const { height } = await page.locator(".chart text").first().boundingBox();
  assert.ok(height >= 10, `labels of ${height} px`);
  await check(page, "phone, chart");
  await picture(page, "phone-chart");
}

async function running(page, other) {
  await go(other, "SQL");
  await other.getByRole("textbox", { name: "SQL" }).fill("SELECT pg_sleep(600) AS long");
  await other.getByRole("button", { name: "Run", exact: true }).click();
  await go(page, "Running", "Running statements");
  const card = page.getByRole("article", { name: /pg_sleep\(600\) AS long/ });
  await card.waitFor();
  await card.getByText("executing").waitFor();
  await check(page, "running");
  // The button stays the same while the card is told of news, so the keyboard's focus does, too.
  await card.getByRole("button", { name: /^Cancel/ }).focus();
  const elapsed = card.locator("dd").first();
  const before = await elapsed.textContent();
  await page.waitForFunction(([text]) => document.querySelector("article dd").textContent !== text, [before]);
  assert.ok(await card.getByRole("button", { name: /^Cancel/ }).evaluate((button) => button === document.activeElement));
  await page.keyboard.press("Enter");
  await other.getByRole("alert").getByText("57014").waitFor();
  await card.waitFor({ state: "detached" });
  // And by the box's own button.
  await other.getByRole("button", { name: "Run", exact: true }).click();
  await other.getByRole("button", { name: "Cancel" }).click();
  await other.getByText(/^Cancelled after/).waitFor();
}

async function history(page) {
  await runSql(page, "SELECT count(*) >= 10000 AS many FROM system.query_history");
  await page.getByRole("region", { name: "Result" }).getByRole("cell", { name: "t", exact: true }).waitFor();
  const since = Date.now();
  await go(page, "History");
  await page.getByRole("link", { name: /^SELECT count/ }).first().waitFor();
  const took = Date.now() - since;
  assert.ok(took < QUICK, `the history took ${took} ms`);
  await page.getByRole("searchbox", { name: "Find" }).fill("nothing from HERDS");
  await page.keyboard.press("Enter");
  await page.getByRole("link", { name: "SELECT nothing FROM herds" }).click();
  await page.getByRole("heading", { name: "Statement", exact: true }).waitFor();
  await page.getByText("42703").waitFor();
  await page.getByText("It ended before there was anything to measure").waitFor();
  await check(page, "failed statement");
  await page.goBack();
  // The page as it was: what is typed sooner could be typed into the one that it takes the place of.
  await page.getByRole("link", { name: "SELECT nothing FROM herds" }).waitFor();
  await page.getByRole("searchbox", { name: "Find" }).fill("count(*) AS herds");
  await page.keyboard.press("Enter");
  await page.getByRole("link", { name: /^SELECT name, count/ }).first().click();
  await page.getByRole("img", { name: /^Queued .*Planning .*Execution/ }).waitFor();
  await check(page, "statement");
  await picture(page, "statement");
  const settings = page.locator("section", { has: page.getByRole("heading", { name: "Settings that were not as by default" }) });
  await settings.getByText("None.").waitFor();
  await page.goBack();
  await page.getByRole("link", { name: /^SELECT name, count/ }).first().waitFor();
  await page.getByRole("searchbox", { name: "Find" }).fill("far away");
  await page.keyboard.press("Enter");
  await page.getByRole("link", { name: /^SELECT 'far away'/ }).first().click();
  await settings.getByRole("definition").filter({ hasText: "Europe/Vienna" }).waitFor();
  await settings.getByText("TimeZone").waitFor();
}

// Addresses that nobody is led to.
async function addresses(page) {
  await page.goto(`${address}/#/history?page=-1`);
  await page.getByRole("link", { name: /^SELECT/ }).first().waitFor();
  assert.ok(await page.getByRole("button", { name: "Newer" }).isDisabled());
  await page.goto(`${address}/#/history?page=9999`);
  await page.getByText("No statement is as far back as page 10000.").waitFor();
  await page.getByRole("button", { name: "The newest" }).click();
  await page.getByRole("link", { name: /^SELECT/ }).first().waitFor();
  await page.goto(`${address}/#/bogus`);
  await page.getByRole("heading", { level: 1, name: "No such page" }).waitFor();
  assert.equal(await page.locator(".side nav a[aria-current]").count(), 0);
  await check(page, "no page");
  await page.goto(`${address}/#/catalog/oribi/public/nothing`);
  await page.getByText("There is no table or view public.nothing in database oribi").waitFor();
  await page.goto(`${address}/#/catalog/%`);
  await page.getByRole("heading", { level: 1, name: "Catalog" }).waitFor();
  await page.getByText("Choose a table.").waitFor();
  assert.equal(await page.getByRole("alert").count(), 0);
}

async function catalog(page) {
  await go(page, "Catalog");
  await page.getByRole("link", { name: "herds" }).click();
  await page.getByRole("cell", { name: "animals" }).waitFor();
  await page.getByRole("tab", { name: "Rows" }).click();
  await page.getByRole("region", { name: "Sample rows" }).getByRole("cell", { name: "herd 3" }).first().waitFor();
  await page.getByRole("tab", { name: "Files" }).click();
  await page.getByRole("table", { name: "Partitions with their files" }).waitFor();
  await page.getByRole("table", { name: "The largest 500 files" }).getByRole("cell", { name: /\.parquet$/ }).first().waitFor();
  // By the arrow keys, which keep the focus on the tabs.
  await page.keyboard.press("ArrowRight");
  await page.getByRole("table", { name: "Snapshots" }).getByText("current").waitFor();
  const lines = await page.locator("td .date").first().evaluate((element) => element.getClientRects().length);
  assert.equal(lines, 1, "a date stands on one line");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Snapshots");
  await check(page, "table");
  await picture(page, "catalog");
}

async function zookeeper(page) {
  await go(page, "ZooKeeper");
  for (const name of ["catalog", "oribi", "herds"]) await page.getByRole("table", { name: /^Children/ }).getByRole("link", { name, exact: true }).click();
  await page.getByText('"metadata"').or(page.getByText("metadata")).first().waitFor();
  await page.getByText("persistent").first().waitFor();
  await page.goto(`${address}/#/zookeeper`);
  await page.getByRole("table", { name: /^Children/ }).first().waitFor();
  assert.equal(await page.getByText("1970").count(), 0, "nothing was made in 1970");
  await page.goBack();
  await page.getByText("persistent").first().waitFor();
  await check(page, "znode");
  await picture(page, "zookeeper");
}

async function submitted(page) {
  await go(page, "Submitted", "Submitted queries");
  await page.getByText("Submit a query").click();
  await page.getByRole("textbox", { name: "SQL" }).first().fill("SELECT max(animals) AS most FROM herds");
  await page.getByRole("button", { name: "Submit", exact: true }).click();
  await page.getByRole("button", { name: /^Rows of/ }).click();
  await page.getByRole("button", { name: "Run", exact: true }).click();
  await page.getByRole("region", { name: "Result" }).getByRole("cell", { name: "30" }).waitFor();
  await go(page, "Submitted", "Submitted queries");
  // Nobody is offered rows that there are none of.
  await page.getByText("Submit a query").click();
  await page.getByRole("textbox", { name: "SQL" }).first().fill("-- more\nINSERT INTO herds VALUES (-1, 'late', 3)");
  await page.getByRole("button", { name: "Submit", exact: true }).click();
  await page.getByText("has changed rows").waitFor();
  assert.equal(await page.getByRole("button", { name: /^Rows of/ }).count(), 1);
  // Why one has failed, and its statement with what was measured.
  await page.getByRole("textbox", { name: "SQL" }).first().fill("SELECT 1 / (animals - animals) FROM herds");
  await page.getByRole("button", { name: "Submit", exact: true }).click();
  const failed = page.getByRole("row", { name: /22012 division by zero/ });
  await failed.getByRole("link", { name: /^Statement of/ }).click();
  await page.getByRole("alert").getByText("22012").waitFor();
  await page.getByText(/^the last attempt at s-/).waitFor();
  await go(page, "Submitted", "Submitted queries");
  await page.getByText("Make or change a schedule").click();
  await page.getByRole("textbox", { name: "SQL" }).last().fill("SELECT 1");
  await page.getByRole("textbox", { name: "Name" }).fill("nightly");
  await page.getByRole("textbox", { name: "When (cron)" }).fill("30 2 * * *");
  await page.getByRole("button", { name: "Schedule", exact: true }).click();
  await page.getByRole("button", { name: "Remove the schedule nightly" }).waitFor();
  await check(page, "submitted");
  await page.getByRole("button", { name: "Remove the schedule nightly" }).click();
  await page.getByText("There is no schedule of yours.").waitFor();
}

// From the log-in to rows and out again, without a mouse.
async function keyboard() {
  const page = await newPage();
  await page.goto(address);
  await page.getByLabel("User").waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.name), "user");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Cluster" }).waitFor();
  const tabTo = async (name) => {
    for (let presses = 0; presses < 80; presses++) {
      await page.keyboard.press("Tab");
      const [text, seen] = await page.evaluate(() => {
        const element = document.activeElement;
        if (element === document.body) return ["", true];
        const style = getComputedStyle(element);
        return [element.getAttribute("aria-label") ?? element.labels?.[0]?.textContent ?? element.textContent, style.outlineStyle !== "none" || style.boxShadow !== "none"];
      });
      assert.ok(seen, `the focus on "${text}" is seen`);
      if (text.trim() === name) return;
    }
    assert.fail(`${name} is not reached by Tab`);
  };
  await page.evaluate(() => document.activeElement.blur());
  await tabTo("Skip to content");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  await page.evaluate(() => document.activeElement.blur());
  await tabTo("SQL");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { level: 1, name: "SQL" }).waitFor();
  await tabTo("SQL");
  await page.keyboard.type("SELECT 6 * 7 AS answer");
  await page.keyboard.press("Control+Enter");
  await page.getByRole("region", { name: "Result" }).getByRole("cell", { name: "42" }).waitFor();
  await page.evaluate(() => document.activeElement.blur());
  await tabTo("Log out");
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Log in" }).waitFor();
  await page.context().close();
}

(async () => {
  const sandbox = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
  browser = await chromium.launch({ executablePath: executable, args: [...sandbox, "--disable-dev-shm-usage"] });
  try {
    const page = await newPage();
    await logIn(page);
    await statements(page);
    const other = await newPage();
    await logIn(other);
    await running(page, other);
    await other.context().close();
    await history(page);
    await addresses(page);
    await catalog(page);
    await zookeeper(page);
    await submitted(page);
    await everyPage(page, "wide");
    await page.context().close();
    const phone = await newPage({ viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2 });
    await logIn(phone);
    await everyLinkIsSeen(phone, "phone");
    await phone.setViewportSize({ width: 390, height: 844 });
    await everyLinkIsSeen(phone, "a larger phone");
    await picture(phone, "phone-390");
    await phone.setViewportSize({ width: 360, height: 740 });
    await everyPage(phone, "phone");
    await plan(phone, "phone");
    await smallChart(phone);
    await phone.context().close();
    const dark = await newPage({ colorScheme: "dark" });
    await logIn(dark);
    const [ground, ink] = await dark.evaluate(() => { const style = getComputedStyle(document.body); return [style.backgroundColor, style.color].map((color) => color.match(/\d+/g).map(Number).reduce((a, b) => a + b)); });
    assert.ok(ground < 150 && ink > 600, `dark mode: ${ground}, ${ink}`);
    await everyPage(dark, "dark");
    await dark.context().close();
    await keyboard();
    assert.deepEqual(trouble, []);
  } catch (error) {
    if (trouble.length) console.error(trouble.join("\n"));
    throw error;
  } finally {
    await browser.close();
  }
})().catch((error) => { console.error(error); process.exit(1); });
