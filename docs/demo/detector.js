// Finds faces in the browser as darknet_face/detection/detector.py does, with the same steps: the
// image turned upright, scaled down by averaging areas, padded, the network, non-maximum suppression.
// Its settings are in model.json, which build.py writes.
//
// It runs in the page, not in a worker: the page's Content-Security-Policy would not bind a worker.
import * as ort from "./onnxruntime.js";

const BAND = 1 << 22; // pixels that are read at a time: phones have no canvas for a whole photograph

ort.env.wasm.numThreads = 1; // more need headers that a repository's pages can't send
ort.env.wasm.wasmPaths = Object.fromEntries(["mjs", "wasm"].map((kind) => [
  kind, new URL(kind === "mjs" ? "onnxruntime-wasm.js" : "onnxruntime.wasm", import.meta.url).href]));

async function get(name, options) {
  const response = await fetch(new URL(name, import.meta.url), options);
  if (!response.ok) { throw new Error(`${name}: the server answers ${response.status}`); }
  return response;
}

export async function openDetector() {
  const settings = await (await get("model.json", {cache: "no-cache"})).json();
  const model = await (await get(`${settings.model}?${settings.sha256}`)).arrayBuffer();
  if (globalThis.crypto?.subtle) { // browsers offer it over HTTPS and on this computer
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", model));
    const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (found !== settings.sha256) {
      throw new Error(`${settings.model} is not the file that model.json describes`);
    }
  }
  const session = await ort.InferenceSession.create(new Uint8Array(model));
  return {settings, detect: (blob) => detect(session, settings, blob)};
}

// The probability that an image shows a face, and all candidates, the most probable first: their
// boxes as shares of the image's sides.
async function detect(session, settings, blob) {
  const {pixels, rows, columns} = await scaledPixels(blob, settings.image_size);
  const input = padded(pixels, rows, columns, settings.size_multiple);
  const output = await session.run({input});
  const boxes = output.boxes.data, scores = output.scores.data;
  const kept = suppress(boxes, scores, settings);
  const probability = (score) => {
    const clipped = Math.min(Math.max(score, 1e-6), 1 - 1e-6);
    const odds = settings.calibration[0] + settings.calibration[1] * Math.log(clipped / (1 - clipped));
    return 1 / (1 + Math.exp(-odds));
  };
  const share = (value, side) => Math.min(Math.max(value / side, 0), 1);
  const faces = kept.map((index) => ({
    left: share(boxes[4 * index], columns), top: share(boxes[4 * index + 1], rows),
    right: share(boxes[4 * index + 2], columns), bottom: share(boxes[4 * index + 3], rows),
    probability: probability(scores[index]),
  })).sort((one, other) => other.probability - one.probability);
  const best = faces.length ? faces[0].probability : probability(settings.min_score);
  return {probability: best, faces};
}

// RGB of 0 to 255, upright, the longer side scaled down to a size, never up. Rejects what is no image.
export async function scaledPixels(blob, size) {
  const bitmap = await createImageBitmap(
    blob, {imageOrientation: "from-image", colorSpaceConversion: "none"});
  try {
    const scale = Math.min(1, size / Math.max(bitmap.width, bitmap.height));
    const [rows, columns] = [bitmap.height, bitmap.width].map(
      (side) => Math.max(1, roundHalfToEven(side * scale)));
    return {pixels: averageAreas(bitmap, rows, columns), rows, columns};
  } finally {
    bitmap.close();
  }
}

function roundHalfToEven(value) {
  const below = Math.floor(value);
  return value - below === 0.5 ? below + below % 2 : Math.round(value);
}

// The averages of equal areas, as cv2.INTER_AREA: exact but for rounding, which differs by one level
// at most. Transparent parts show white.
function averageAreas(bitmap, rows, columns) {
  const {width, height} = bitmap;
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = Math.min(height, Math.max(1, Math.floor(BAND / width)));
  const context = canvas.getContext("2d", {alpha: false, willReadFrequently: true});
  context.fillStyle = "white";
  const across = shares(width, columns), down = shares(height, rows);
  const line = new Float64Array(3 * (columns + 1));
  const sums = new Float64Array(3 * columns * (rows + 1));
  for (let top = 0; top < height; top += canvas.height) {
    const count = Math.min(canvas.height, height - top);
    context.fillRect(0, 0, width, count);
    context.drawImage(bitmap, 0, top, width, count, 0, 0, width, count);
    const band = context.getImageData(0, 0, width, count).data;
    for (let row = 0; row < count; row += 1) {
      sumAcross(band, row * width, across, line);
      const share = down.share[top + row];
      let target = 3 * columns * down.first[top + row];
      for (let index = 0; index < 3 * columns; index += 1, target += 1) {
        sums[target] += share * line[index];
        sums[target + 3 * columns] += (1 - share) * line[index];
      }
    }
  }
  canvas.width = canvas.height = 0; // frees the memory at once
  const area = (width / columns) * (height / rows);
  return Uint8ClampedArray.from(sums.subarray(0, 3 * columns * rows), (sum) => Math.round(sum / area));
}

function sumAcross(band, start, {first, share}, line) {
  line.fill(0);
  for (let column = 0, source = 4 * start; column < first.length; column += 1, source += 4) {
    const target = 3 * first[column];
    for (let channel = 0; channel < 3; channel += 1) {
      const value = band[source + channel];
      line[target + channel] += share[column] * value;
      line[target + 3 + channel] += (1 - share[column]) * value;
    }
  }
}

// When a side shrinks, each pixel lies in one area, or in two that follow each other: the first of
// them, and the share of the pixel in it.
function shares(length, count) {
  const scale = length / count;
  const first = new Int32Array(length), share = new Float64Array(length);
  for (let index = 0; index < length; index += 1) {
    first[index] = Math.min(count - 1, Math.floor(index / scale));
    share[index] = Math.min(1, (first[index] + 1) * scale - index);
  }
  return {first, share};
}

// The network's input: 0 to 1, [1, 3, height, width], black at the right and at the bottom.
function padded(pixels, rows, columns, multiple) {
  const [height, width] = [rows, columns].map((side) => Math.ceil(side / multiple) * multiple);
  const values = new Float32Array(3 * height * width);
  for (let row = 0, source = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      for (let channel = 0; channel < 3; channel += 1, source += 1) {
        values[(channel * height + row) * width + column] = pixels[source] / 255;
      }
    }
  }
  return new ort.Tensor("float32", values, [1, 3, height, width]);
}

// Non-maximum suppression: of boxes that overlap or lie in each other the best stays. Returns the
// indices of those that stay, best first.
export function suppress(boxes, scores, settings) {
  const area = (left, top, right, bottom) => Math.max(right - left, 0) * Math.max(bottom - top, 0);
  const box = (index) => boxes.subarray(4 * index, 4 * index + 4);
  const candidates = Array.from(scores.keys())
    .filter((index) => scores[index] >= settings.min_score)
    .sort((one, other) => scores[other] - scores[one] || one - other)
    .slice(0, settings.most_candidates)
    .filter((index) => area(...box(index)) > 0);
  const kept = [];
  for (const index of candidates) {
    const one = box(index), size = area(...one);
    const repeats = kept.some((better) => {
      const other = box(better), otherSize = area(...other);
      const common = area(Math.max(one[0], other[0]), Math.max(one[1], other[1]),
                          Math.min(one[2], other[2]), Math.min(one[3], other[3]));
      return common > settings.nms_iou * (size + otherSize - common) ||
        common > settings.nested * Math.min(size, otherSize);
    });
    if (!repeats && kept.push(index) === settings.most_faces) { break; }
  }
  return kept;
}
