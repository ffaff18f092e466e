#!/usr/bin/env node
// A Solidity compiler with the command line of solc, run by node from the npm package `solc`. Deterministic on every platform, and the
// only way to compile where no native solc can be installed. Used by py-solc-x (`solc_binary=`), by forge (FOUNDRY_SOLC) and by slither.
// Answers `--version`, `--standard-json [FILE]` and `--combined-json`; honours `--base-path`, `--include-path` and `--allow-paths`.
import { createRequire } from "node:module";
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { Worker, isMainThread, workerData } from "node:worker_threads";

const STACK_MB = 256; // the IR pipeline recurses deeper than node's default stack
const MARKER = "SEAWALL_SOLCJS"; // workers share argv, so they are told what to do by workerData

function parse(argv) {
  const options = { include: [], allow: [], files: [], remappings: [] };
  for (let i = 0; i < argv.length; i++) {
    const [flag, inline] = argv[i].split(/=(.*)/s);
    const value = () => (inline !== undefined ? inline : argv[++i]);
    if (flag === "--version") options.version = true;
    else if (flag === "--standard-json") options.standardJson = true;
    else if (flag === "--combined-json") options.combinedJson = value();
    else if (flag === "--base-path") options.base = value();
    else if (flag === "--include-path") options.include.push(value());
    else if (flag === "--allow-paths") options.allow.push(...value().split(","));
    else if (flag === "--optimize") options.optimize = true;
    else if (flag === "--optimize-runs") options.runs = Number(value());
    else if (flag === "--evm-version") options.evmVersion = value();
    else if (flag === "--via-ir") options.viaIR = true;
    else if (flag === "--no-cbor-metadata") options.noMetadata = true;
    else if (flag.startsWith("-") && flag !== "-") throw new Error(`solcjs.mjs: unknown option ${flag}`);
    else if (!flag.startsWith("/") && argv[i].includes("=")) options.remappings.push(argv[i]);
    else options.files.push(argv[i]);
  }
  return options;
}

function loadCompiler() {
  const require = createRequire(fileURLToPath(import.meta.url));
  const warnings = process.listeners("uncaughtException"); // soljson installs its own handlers, which would hide our exit code
  const compiler = require("solc");
  for (const event of ["uncaughtException", "unhandledRejection"]) {
    for (const listener of process.listeners(event)) if (!warnings.includes(listener)) process.removeListener(event, listener);
  }
  return compiler;
}

function importCallback(options) {
  const roots = [options.base ?? process.cwd(), ...options.include];
  return (name) => {
    const plain = name.replace(/^file:\/\//, "");
    const candidates = path.isAbsolute(plain) ? [plain] : roots.map((root) => path.resolve(root, plain));
    for (const candidate of candidates) {
      if (fs.existsSync(candidate)) return { contents: fs.readFileSync(candidate, "utf8") };
    }
    return { error: `${name} not found under ${roots.join(", ")}` };
  };
}

function combined(options, output) {
  const wanted = options.combinedJson.split(",");
  const contracts = {};
  for (const [file, entries] of Object.entries(output.contracts ?? {})) {
    for (const [name, entry] of Object.entries(entries)) {
      const all = {
        abi: entry.abi, bin: entry.evm?.bytecode?.object, "bin-runtime": entry.evm?.deployedBytecode?.object,
        srcmap: entry.evm?.bytecode?.sourceMap, "srcmap-runtime": entry.evm?.deployedBytecode?.sourceMap,
        hashes: entry.evm?.methodIdentifiers, metadata: entry.metadata, userdoc: entry.userdoc, devdoc: entry.devdoc,
      };
      contracts[`${file}:${name}`] = Object.fromEntries(wanted.filter((key) => key in all).map((key) => [key, all[key]]));
    }
  }
  const sources = Object.fromEntries(Object.entries(output.sources ?? {}).map(([file, s]) => [file, { AST: s.ast }]));
  return { contracts, sources, sourceList: Object.keys(output.sources ?? {}), version: undefined };
}

function compile(options, input) {
  const compiler = loadCompiler();
  return { output: compiler.compile(input, { import: importCallback(options) }), version: compiler.version() };
}

function run(options) {
  if (options.version) {
    process.stdout.write(`solc, the solidity compiler commandline interface\nVersion: ${loadCompiler().version()}\n`);
    return 0;
  }
  if (options.standardJson) {
    const file = options.files[0] && options.files[0] !== "-" ? options.files[0] : 0;
    fs.writeSync(1, ""); // fail early when stdout is closed
    writeAll(compile(options, fs.readFileSync(file, "utf8")).output + "\n");
    return 0;
  }
  if (options.combinedJson !== undefined) {
    const input = {
      language: "Solidity",
      sources: Object.fromEntries(options.files.map((file) => [file, { content: fs.readFileSync(file, "utf8") }])),
      settings: {
        remappings: options.remappings, viaIR: options.viaIR ?? false, evmVersion: options.evmVersion,
        optimizer: { enabled: options.optimize ?? false, runs: options.runs ?? 200 },
        outputSelection: { "*": { "*": ["*"], "": ["ast"] } },
      },
    };
    const { output, version } = compile(options, JSON.stringify(input));
    const parsed = JSON.parse(output);
    for (const problem of parsed.errors ?? []) process.stderr.write(problem.formattedMessage + "\n");
    if ((parsed.errors ?? []).some((problem) => problem.severity === "error")) return 1;
    writeAll(JSON.stringify({ ...combined(options, parsed), version }) + "\n");
    return 0;
  }
  process.stderr.write("solcjs.mjs: give --version, --standard-json or --combined-json\n");
  return 1;
}

function writeAll(text) {
  const bytes = Buffer.from(text);
  for (let done = 0; done < bytes.length; ) {
    try {
      done += fs.writeSync(1, bytes, done);
    } catch (error) {
      if (error.code !== "EAGAIN") throw error; // a full pipe: the reader is slower than we are
    }
  }
}

if (isMainThread) {
  let options;
  try {
    options = parse(process.argv.slice(2));
  } catch (error) {
    process.stderr.write(`${error.message}\n`);
    process.exit(1);
  }
  if (options.version) process.exitCode = run(options);
  else {
    const worker = new Worker(fileURLToPath(import.meta.url), {
      workerData: { [MARKER]: options }, resourceLimits: { stackSizeMb: STACK_MB, maxOldGenerationSizeMb: 8192 },
    });
    worker.on("error", (error) => { process.stderr.write(`${error.stack}\n`); process.exitCode = 1; });
    worker.on("exit", (code) => { process.exitCode ||= code; });
  }
} else if (workerData?.[MARKER]) {
  process.exitCode = run(workerData[MARKER]);
}
