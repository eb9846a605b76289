// Numbers, times and sizes as people read them.

export function bytes(value) {
  if (value === null || value === undefined || value === "") return undefined;
  let number = Number(value);
  for (const unit of ["B", "KiB", "MiB", "GiB", "TiB"]) {
    if (Math.abs(number) < 1024 || unit === "TiB") return `${unit === "B" ? number : number.toFixed(number < 10 ? 1 : 0)} ${unit}`;
    number /= 1024;
  }
}

export function count(value) {
  if (value === null || value === undefined || value === "") return undefined;
  return Number(value).toLocaleString("en");
}

// "1 row", "2 rows".
export function counted(number, one) {
  return `${count(number)} ${one}${Number(number) === 1 ? "" : "s"}`;
}

export function millis(value) {
  if (value === null || value === undefined || value === "") return undefined;
  const ms = Number(value);
  if (ms < 1) return `${(ms * 1000).toFixed(0)} µs`;
  if (ms < 1000) return `${ms.toFixed(ms < 10 ? 1 : 0)} ms`;
  return seconds(ms / 1000);
}

export function seconds(value) {
  if (value === null || value === undefined || value === "") return undefined;
  const s = Number(value);
  if (s < 60) return `${s.toFixed(s < 10 ? 1 : 0)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

// PostgreSQL's text of a timestamp with time zone.
export function moment(text) {
  if (!text) return undefined;
  const date = new Date(text.replace(" ", "T").replace(/([+-]\d\d)$/, "$1:00"));
  if (Number.isNaN(date.getTime())) return text;
  const two = (number) => String(number).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

// The same, short: what is of today without the day.
export function when(text) {
  const full = moment(text);
  if (!full) return undefined;
  const [day, time] = full.split(" ");
  const today = new Date();
  const two = (number) => String(number).padStart(2, "0");
  return day === `${today.getFullYear()}-${two(today.getMonth() + 1)}-${two(today.getDate())}` ? time : `${day} ${time?.slice(0, 5)}`;
}

export function percent(part) {
  return part === null || part === undefined || part === "" ? undefined : `${Math.round(Number(part) * 100)} %`;
}

// A statement on one line.
export function oneLine(sql) {
  return sql?.replace(/\s+/g, " ").trim();
}
