// Runs a TensorFlow.js graph model with TensorFlow.js itself (pure JavaScript backend) on an input that a formula
// makes, and prints a sample of every output as JSON. The files beside this one were made by it:
//
//   npm install @tensorflow/tfjs@4.22.0          (anywhere outside this tree)
//   node reference.mjs nanodet.json > nanodet.reference.json
//
// Element (a, b, c) of the input, for its last three dimensions, is
//   (((b >> 4) * 31 + (c >> 4) * 17 + a * 7) % 23) / 8 - 1.375 + (hash(i) >> 24) / 512
// where i is its flat index and hash(i) = i * 2654435761 modulo 2^32. Every step is exact in 32-bit floating point.
import { createRequire } from 'node:module';
import fs from 'node:fs';
import path from 'node:path';
const require = createRequire(path.join(process.cwd(), 'package.json'));
const tf = require('@tensorflow/tfjs');

const SAMPLES = 101;
const file = process.argv[2];
const wanted = process.argv.slice(3);
const model = JSON.parse(fs.readFileSync(file, 'utf8'));
const specs = model.weightsManifest.flatMap((group) => group.weights);
const parts = model.weightsManifest.flatMap((group) => group.paths)
  .map((p) => fs.readFileSync(path.join(path.dirname(file), p)));
const bytes = Buffer.concat(parts);
await tf.setBackend('cpu');
const graph = await tf.loadGraphModel(tf.io.fromMemory({
  modelTopology: model.modelTopology,
  format: model.format,
  signature: model.signature,
  weightSpecs: specs,
  weightData: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength),
}));
const shape = graph.inputs[0].shape;
const [A, B, C] = shape.slice(1);
const data = new Float32Array(A * B * C);
for (let a = 0, i = 0; a < A; a++) {
  for (let b = 0; b < B; b++) {
    for (let c = 0; c < C; c++, i++) {
      const hash = Math.imul(i, 0x9E3779B1) >>> 0;
      data[i] = (((b >> 4) * 31 + (c >> 4) * 17 + a * 7) % 23) / 8 - 1.375 + (hash >>> 24) / 512;
    }
  }
}
const names = wanted.length ? wanted : graph.outputNodes;
let results = await graph.executeAsync(tf.tensor(data, shape), names);
if (!Array.isArray(results)) results = [results];
const outputs = names.map((name, k) => {
  const values = results[k].dataSync();
  const stride = Math.max(1, Math.floor(values.length / SAMPLES));
  const sample = [];
  for (let i = 0; i < values.length; i += stride) sample.push(Number(values[i].toPrecision(7)));
  return { name: name.replace(/:0$/, ''), shape: results[k].shape, stride, sample };
});
console.log(JSON.stringify({ input: shape, outputs }));
