// Reads one rollout of a store of opd-tui: its tokens, the student's log-probabilities and one teacher's.
//
//   npm install zarrita @zarrita/storage
//   node read_rollout.mjs S.zarr QUESTION ROLLOUT TEACHER [--json]
//
// docs/reading_stores_javascript.md explains it; docs/reading_stores.md says what the arrays are.
import { parseArgs } from "node:util";
import FileSystemStore from "@zarrita/storage/fs";
import * as zarr from "zarrita";

const { positionals, values } = parseArgs({ allowPositionals: true, options: { json: { type: "boolean" } } });
if (positionals.length !== 4) {
  console.error("usage: node read_rollout.mjs S.zarr QUESTION ROLLOUT TEACHER [--json]");
  process.exit(2);
}
const [path, question, rollout, teacher] = positionals;
const store = new FileSystemStore(path);
const root = zarr.root(store);

/** The attributes of a group, or null where there is no such group. */
async function attributes(group) {
  try {
    return (await zarr.open.v3(root.resolve(group), { kind: "group" })).attrs;
  } catch (error) {
    if (zarr.isZarritaError(error, "NotFoundError")) return null;
    throw error;
  }
}

/** Rows first to last - 1 of an array of one axis, as a typed array; offsets (int64) as plain numbers. */
async function rows(name, first, last) {
  const array = await zarr.open.v3(root.resolve(name), { kind: "array" });
  const { data } = await zarr.get(array, [zarr.slice(first, last)]);
  return data instanceof BigInt64Array ? Array.from(data, Number) : data;
}

/** The part that readers take a question from, and its row there: the highest generation, then the first part. */
async function find(wanted) {
  const manifest = JSON.parse(new TextDecoder().decode(await store.get("/manifest.json")));
  let found = null;
  for (const part of manifest.parts) {
    const commit = await attributes(`student/${part}`);
    const row = commit?.question_ids.indexOf(wanted) ?? -1;
    const generation = commit?.generation ?? 0;
    if (row >= 0 && (found === null || generation > found.generation)) found = { part, row, generation };
  }
  return found;
}

async function read() {
  const place = await find(question);
  if (place === null) throw new Error(`the store has no question ${JSON.stringify(question)}`);
  const student = `student/${place.part}`;
  const heard = `teacher/${teacher}/${place.part}`;
  if ((await attributes(heard)) === null) throw new Error(`teacher ${JSON.stringify(teacher)} has not read this question`);

  // The rollouts of the question, the one that is wanted, and its tokens: offsets lead from one to the next.
  const [firstRollout, lastRollout] = await rows(`${student}/rollout_start`, place.row, place.row + 2);
  const indices = await rows(`${student}/rollout_index`, firstRollout, lastRollout);
  const at = indices.indexOf(Number(rollout));
  if (at < 0) throw new Error(`the question has no rollout ${rollout}; it has ${indices.join(", ")}`);
  const [first, last] = await rows(`${student}/token_start`, firstRollout + at, firstRollout + at + 2);
  const [tokenIds, studentLogprobs, teacherLogprobs] = await Promise.all([
    rows(`${student}/token_id`, first, last),
    rows(`${student}/logprob`, first, last),
    rows(`${heard}/logprob`, first, last),
  ]);

  // The vocabulary: the bytes of token t are token_bytes[token_start[t] .. token_start[t + 1]].
  const [bytes, starts] = await Promise.all([rows("vocab/token_bytes", null, null), rows("vocab/token_start", null, null)]);
  const decoder = new TextDecoder();
  return Array.from(tokenIds, (id, position) => ({
    position,
    token_id: id,
    token: decoder.decode(bytes.subarray(starts[id], starts[id + 1])),
    student_logprob: studentLogprobs[position],
    teacher_logprob: teacherLogprobs[position],
  }));
}

try {
  const tokens = await read();
  if (values.json) {
    console.log(JSON.stringify(tokens));
  } else {
    for (const { position, token_id, token, student_logprob, teacher_logprob } of tokens) {
      const shown = token.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, "\ufffd"); // nothing from data reaches the terminal as a control
      const numbers = [student_logprob, teacher_logprob].map((value) => value.toFixed(6).padStart(11));
      console.log(String(position).padStart(5), String(token_id).padStart(7), ...numbers, ` ${JSON.stringify(shown)}`);
    }
  }
} catch (error) {
  console.error(`read_rollout.mjs: ${error.message}`.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, "\ufffd"));
  process.exit(1);
}
