// The daemon: who is logged in, statements, what changes.

export const session = { user: undefined, mode: "on" };

export class Fault extends Error {
  constructor(fault, status) {
    super(fault.message ?? "the daemon does not answer");
    Object.assign(this, { code: fault.code, detail: fault.detail, hint: fault.hint, position: fault.position, context: fault.context, status });
  }
}

let onLoggedOut = () => {};
export function whenLoggedOut(callback) { onLoggedOut = callback; }

async function request(path, options = {}) {
  const { body, ...rest } = options;
  const init = { credentials: "same-origin", cache: "no-store", ...rest };
  if (body !== undefined) {
    init.method = "POST";
    init.body = JSON.stringify(body);
    init.headers = { "Content-Type": "application/json", ...(session.csrf ? { "X-Oribi-Csrf": session.csrf } : {}) };
  }
  const response = await fetch(path, init).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new Fault({ message: "The daemon cannot be reached.", hint: "It may have stopped; any other daemon of the cluster has a console, too." });
  });
  if (!response.ok) {
    const told = await response.json().catch(() => ({ error: { message: `HTTP status ${response.status}` } }));
    const fault = new Fault(told.error, response.status);
    if (response.status === 401 && session.user && path !== "/api/login") {
      session.user = undefined;
      onLoggedOut(fault);
    }
    throw fault;
  }
  return response;
}

// Asked after each loading. Nobody being logged in is no failure.
export async function recall() {
  Object.assign(session, await (await request("/api/session")).json());
  return Boolean(session.user);
}

export async function logIn(user, password, database) {
  session.csrf = undefined;
  Object.assign(session, await (await request("/api/login", { body: { user, password, database } })).json());
}

export async function logOut() {
  await request("/api/logout", { body: {} });
  session.user = session.csrf = undefined;
}

// Runs a text of SQL. `told` hears of its results as they come: columns(list), rows(list), complete(end),
// notice(fault), copy(text). A failure is thrown.
export async function run(sql, told = {}, { limit = 10000, typed = false, database, signal } = {}) {
  const response = await request("/api/sql", { body: { sql, limit, typed, database }, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let failure;
  for (;;) {
    const { value, done } = await reader.read();
    const lines = ((rest + (value ?? "")).split("\n"));
    rest = done ? "" : lines.pop();
    let rows = [];
    const flush = () => { if (rows.length) told.rows?.(rows); rows = []; };
    for (const line of lines) {
      if (!line) continue;
      const part = JSON.parse(line);
      if (Array.isArray(part)) { rows.push(part); continue; }
      flush();
      if (part.columns) told.columns?.(part.columns);
      else if (part.error) failure = new Fault(part.error);
      else if (part.notice) told.notice?.(part.notice);
      else if (part.copy !== undefined) told.copy?.(part.copy);
      else told.complete?.(part);
    }
    flush();
    if (done) break;
  }
  if (failure) throw failure;
}

// A page's own question: its rows as objects. Numbers stay text.
export async function ask(sql, options) {
  let names = [];
  const found = [];
  const object = (row) => Object.fromEntries(names.map((name, at) => [name, row[at]]));
  await run(sql, {
    columns: (columns) => { names = columns.map((column) => column.name); },
    rows: (rows) => found.push(...rows.map(object)),
  }, options);
  return found;
}

// The same where what is asked for may be denied: then the failure in place of rows.
export async function tryAsk(sql, options) {
  try { return await ask(sql, options); } catch (error) {
    if (error.name === "AbortError") throw error;
    return error;
  }
}

export async function download(sql, format, database) {
  const { url } = await (await request("/api/export", { body: { sql, format, database } })).json();
  return url;
}

export function literal(text) {
  return `'${String(text).replaceAll("'", "''")}'`;
}

export function name(...parts) {
  return parts.map((part) => `"${String(part).replaceAll('"', '""')}"`).join(".");
}

// What changes. Listened to only while a page wants it and is looked at: browsers have few connections
// to one host.
const listeners = new Map();
const last = new Map();
let source;
// Runs while nothing is heard of the daemon.
let silence;

// How long that may be before pages say so, in milliseconds.
const PATIENCE = 3000;

export function listen(topic, callback) {
  if (!listeners.has(topic)) listeners.set(topic, new Set());
  listeners.get(topic).add(callback);
  if (last.has(topic)) callback(last.get(topic));
  settle();
  return () => { listeners.get(topic).delete(callback); settle(); };
}

function settle() {
  const wanted = session.user && !document.hidden && [...listeners.values()].some((set) => set.size);
  if (wanted && !source) {
    source = new EventSource("/api/events");
    for (const topic of ["daemons", "running", "metrics", "coordination", "ensemble"]) {
      source.addEventListener(topic, (event) => {
        const data = JSON.parse(event.data);
        const told = data.error ? new Fault(data.error) : data.rows.map((row) =>
          Object.fromEntries(data.columns.map((column, at) => [column.name, row[at]])));
        last.set(topic, told);
        for (const callback of listeners.get(topic) ?? []) callback(told);
      });
    }
    source.onopen = () => { clearTimeout(silence); silence = undefined; };
    source.onerror = () => {
      silence ??= setTimeout(tellSilence, PATIENCE);
      // The browser tries again by itself, unless it was refused: then nobody may be logged in any more.
      if (source?.readyState === EventSource.CLOSED) {
        source = undefined;
        setTimeout(() => stillThere().then(settle, () => {}), 2000);
      }
    };
  } else if (!wanted && source) {
    source.close();
    source = undefined;
    clearTimeout(silence);
    silence = undefined;
  }
}

// Pages show what they have heard last: that it is of before.
function tellSilence() {
  const lost = new Fault({ code: "08006", message: "This daemon cannot be reached.", hint: "Pages go on when it is back. The consoles of the other daemons show the cluster meanwhile." });
  for (const [topic, set] of listeners) {
    last.set(topic, lost);
    for (const callback of set) callback(lost);
  }
}

// Whether the log-in still holds.
async function stillThere() {
  const known = session.user;
  if (await recall() || !known) return;
  onLoggedOut(new Fault({ code: "28000", message: "You are logged in no more." }));
}

export function forget() {
  source?.close();
  source = undefined;
  last.clear();
}

document.addEventListener("visibilitychange", settle);
