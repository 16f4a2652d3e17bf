// Copies the page's sources into the Python package and writes their digests beside them.
//   node web/build.mjs           copy
//   node web/build.mjs --check   exit 1 if the copy is not the source
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const source = dirname(fileURLToPath(import.meta.url));
const target = join(source, "..", "ingle", "server", "static");
const names = readdirSync(source).filter((name) => /\.(html|css|js|svg)$/.test(name)).sort();
const digest = (bytes) => createHash("sha256").update(bytes).digest("hex");
const manifest = Object.fromEntries(names.map((name) => [name, digest(readFileSync(join(source, name)))]));
const text = JSON.stringify(manifest, null, 2) + "\n";

if (process.argv.includes("--check")) {
  const same =
    readFileSync(join(target, "manifest.json"), "utf8") === text &&
    names.every((name) => digest(readFileSync(join(target, name))) === manifest[name]);
  if (!same) {
    console.error("ingle/server/static is out of date: run node web/build.mjs");
    process.exit(1);
  }
} else {
  rmSync(target, { recursive: true, force: true });
  mkdirSync(target, { recursive: true });
  for (const name of names) writeFileSync(join(target, name), readFileSync(join(source, name)));
  writeFileSync(join(target, "manifest.json"), text);
  console.log(`${names.length} files in ingle/server/static`);
}
