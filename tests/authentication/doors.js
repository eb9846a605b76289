// node-postgres at a door with TLS: doors.js HOST PORT PASSWORD DIRECTORY
'use strict';
const assert = require('node:assert');
const fs = require('node:fs');
const { Client } = require('pg');

const [host, port, password, directory] = process.argv.slice(2);
const file = (name) => fs.readFileSync(`${directory}/${name}`, 'utf8');

async function logIn(user, more, name) {
  const ssl = { ca: file('ca.pem') };
  if (name) Object.assign(ssl, { cert: file(`${name}.pem`), key: file(`${name}.key`) });
  const client = new Client({ host, port: Number(port), database: 'oribi', user, ssl, ...more });
  await client.connect();
  const { rows } = await client.query('SELECT session_user AS "user"');
  await client.end();
  return rows[0].user;
}

async function main() {
  assert.equal(await logIn('alice', { password }), 'alice');
  assert.equal(await logIn('alice', { password, enableChannelBinding: true }), 'alice');
  assert.equal(await logIn('certain', {}, 'certain'), 'certain');
  await assert.rejects(logIn('alice', { password: 'wrong' }), { code: '28P01' });
  await assert.rejects(logIn('certain', {}, 'moved'), { code: '28000' });
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
