// Node's pg, with pg-cursor and pg-query-stream: node.js HOST PORT
"use strict";

const assert = require("node:assert/strict");
const { Client, Pool } = require("pg");
const Cursor = require("pg-cursor");
const QueryStream = require("pg-query-stream");

const [host, port] = process.argv.slice(2);
const address = { host, port: Number(port), user: "oribi", database: "oribi" };

async function connected(work) {
  const client = new Client(address);
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

async function values(client) {
  const { rows, fields } = await client.query(
    "SELECT id, name, born, height, member FROM people ORDER BY id");
  assert.equal(rows.length, 3);
  assert.deepEqual(fields.map((field) => field.dataTypeID), [23, 25, 1082, 1700, 16]);
  // numeric stays text: a number would lose digits.
  assert.deepEqual([rows[0].name, rows[0].height, rows[0].member], ["Ann", "1.72", true]);
  assert.deepEqual([rows[2].name, rows[2].born], ["Zoë, Dr.", null]);
  const kinds = [
    ["int4", 7], ["int8", "1099511627776"], ["text", "it's"], ["float8", 1.25], ["bool", true],
    ["numeric(5,1)", "12.5"], ["bytea", Buffer.from([0, 255])], ["int4[]", [1, null, 3]],
    ["text[]", ["a", "b c"]], ["json", { a: 1 }], ["uuid", "550e8400-e29b-41d4-a716-446655440000"],
    ["timestamptz", new Date(Date.UTC(2024, 1, 29, 1, 2, 3, 4))], ["text", null],
  ];
  for (const [kind, value] of kinds) {
    const answer = await client.query(`SELECT $1::${kind} AS v`, [value]);
    assert.deepEqual(answer.rows[0].v, value, kind);
  }
  const some = await client.query("SELECT name FROM people WHERE id = ANY($1) ORDER BY id", [[1, 2]]);
  assert.deepEqual(some.rows.map((row) => row.name), ["Ann", "Bob"]);
  const arrays = await client.query({ text: "SELECT 1::int4, 'x'", rowMode: "array" });
  assert.deepEqual(arrays.rows, [[1, "x"]]);
  const several = await client.query("SELECT 1::int4 AS a; SELECT 2::int4 AS b");
  assert.deepEqual(several.map((result) => result.rows), [[{ a: 1 }], [{ b: 2 }]]);
}

async function prepared(client) {
  for (const [id, name] of [[1, "Ann"], [2, "Bob"], [1, "Ann"]]) {
    const query = { name: "by-id", text: "SELECT name FROM people WHERE id = $1", values: [id] };
    const { rows } = await client.query(query);
    assert.deepEqual(rows, [{ name }]);
  }
  const { rows } = await client.query({ text: "SELECT 1::int4 AS a", binary: true });
  assert.equal(rows[0].a, 1);
}

async function cursors(client) {
  const series = "SELECT i::int4 AS i FROM generate_series(1, 1000000000) t (i) WHERE i <= $1";
  const short = series.replace("1000000000", "2000");
  const cursor = client.query(new Cursor(short, [250]));
  let total = 0;
  for (;;) {
    const rows = await cursor.read(100);
    if (rows.length === 0) break;
    total += rows.length;
  }
  assert.equal(total, 250);
  await cursor.close();
  // One that is left before its end.
  const other = client.query(new Cursor(series, [999999999]));
  assert.equal((await other.read(10)).length, 10);
  await other.close();
  let sum = 0;
  for await (const row of client.query(new QueryStream(short, [1000], { batchSize: 64 }))) {
    sum += row.i;
  }
  assert.equal(sum, 500500);
}

async function failures(client) {
  await assert.rejects(client.query("SELECT nothing FROM people"), { code: "42703" });
  await assert.rejects(client.query("SELECT $1::int4", ["x"]), { code: "22P02" });
  await client.query("BEGIN");
  await assert.rejects(client.query("SELECT 1 / 0"), { code: "22012" });
  await assert.rejects(client.query("SELECT 1"), { code: "25P02" });
  await client.query("ROLLBACK");
  const notices = [];
  client.on("notice", (notice) => notices.push(notice.code));
  await client.query("COMMIT");
  assert.deepEqual(notices, ["25P01"]);
}

async function pools() {
  const pool = new Pool({ ...address, max: 4 });
  const numbers = Array.from({ length: 20 }, (_, number) => number);
  const answers = await Promise.all(
    numbers.map((number) => pool.query("SELECT $1::int4 AS v", [number])));
  assert.deepEqual(answers.map((answer) => answer.rows[0].v), numbers);
  await pool.end();
}

async function timeouts() {
  const client = new Client({ ...address, statement_timeout: 200 });
  await client.connect();
  const long = "SELECT count(*) FROM generate_series(1, 1000000000000)";
  await assert.rejects(client.query(long), { code: "57014" });
  await client.end();
}

async function main() {
  for (const work of [values, prepared, cursors, failures]) await connected(work);
  await pools();
  await timeouts();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
