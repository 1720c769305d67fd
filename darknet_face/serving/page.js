// The page of serve.py: sends images to /classify and draws the answers.
// File names are shown by textContent only, so that none of them can be markup.
"use strict";

const AT_A_TIME = 3;   // requests; the server classifies them together
const MOST_TRIES = 60; // when the server says that too many images wait
const COLUMNS = ["file", "class", "face_probability", "x", "y", "width", "height", "faces",
                 "error"];

const find = (id) => document.getElementById(id);
const cards = [];      // {item, file, answer} of each image
const waiting = [];    // what to do next: functions that return promises
let running = 0;

function next() {
  while (running < AT_A_TIME && waiting.length) {
    running += 1;
    waiting.shift()().finally(() => { running -= 1; next(); });
  }
}

async function ask(file, withMap) {
  for (let tries = 0; tries < MOST_TRIES; tries += 1) {
    const form = new FormData();
    form.append("image", file, file.name || "pasted");
    const response = await fetch(withMap ? "classify?map=1" : "classify",
                                 {method: "POST", body: form});
    if (response.status !== 503) {
      const answer = await response.json();
      return response.ok ? answer.results[0] : {error: answer.error};
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  return {error: "the server is busy; try again later"};
}

function add(file) {
  const item = find("card").content.cloneNode(true).querySelector("li");
  const card = {item, file, answer: null};
  const photo = item.querySelector(".photo");
  photo.src = URL.createObjectURL(file);
  photo.addEventListener("load", () => draw(card));
  photo.addEventListener("error", () => { photo.alt = "your browser can't show this kind"; });
  item.querySelector(".name").textContent = file.name || "pasted";
  item.querySelector(".name").title = file.name || "";
  cards.push(card);
  find("results").append(item);
  if (file.type.startsWith("video/")) {
    card.answer = {error: "a video: darknet-face film.mp4 --annotate answers.mp4 answers for its frames"};
  } else {
    classify(card);
  }
  draw(card);
}

function classify(card) {
  waiting.push(async () => {
    if (!cards.includes(card)) { return; }
    try {
      card.answer = await ask(card.file, find("maps").checked);
    } catch (error) {
      card.answer = {error: "no answer: is the server running, and is the image below its limit?"};
    }
    draw(card);
    summarise();
    if (lacksMap(card)) { classify(card); } // the box was ticked meanwhile
  });
  next();
}

function lacksMap(card) {
  return find("maps").checked && card.answer && !card.answer.error && !card.answer.map;
}

function draw(card) {
  const {item, answer} = card;
  const threshold = Number(find("threshold").value);
  const part = (name) => item.querySelector("." + name);
  part("mark").style.left = 100 * threshold + "%";
  if (!answer) { return; }
  item.classList.toggle("bad", Boolean(answer.error));
  if (answer.error) {
    part("label").textContent = answer.error;
    return;
  }
  const isFace = answer.probability >= threshold;
  item.classList.toggle("face", isFace);
  const faces = (answer.faces || []).filter((face) => face.probability >= threshold);
  part("label").textContent = !isFace ? "No face"
    : faces.length > 1 ? `${faces.length} faces` : "Face";
  part("probability").textContent = answer.probability.toFixed(4);
  part("fill").style.width = 100 * answer.probability + "%";
  const boxes = faces.length ? faces : answer.place ? [answer.place] : [];
  drawBoxes(part("boxes"), part("photo"), isFace && find("boxes").checked ? boxes : []);
  part("map").hidden = !(answer.map && find("maps").checked);
  if (answer.map) { part("map").src = answer.map; }
}

function drawBoxes(parent, photo, boxes) {
  const width = photo.naturalWidth, height = photo.naturalHeight;
  parent.replaceChildren(...(width && height ? boxes : []).map((place) => {
    const box = document.createElement("div");
    box.className = "box";
    box.style.left = 100 * place.x / width + "%";
    box.style.top = 100 * place.y / height + "%";
    box.style.width = 100 * place.width / width + "%";
    box.style.height = 100 * place.height / height + "%";
    return box;
  }));
}

function summarise() {
  const done = cards.filter((card) => card.answer);
  const good = done.filter((card) => !card.answer.error);
  const threshold = Number(find("threshold").value);
  const faces = good.filter((card) => card.answer.probability >= threshold).length;
  const parts = [`${faces} with a face`, `${good.length - faces} without`];
  if (done.length > good.length) { parts.push(`${done.length - good.length} unreadable`); }
  if (cards.length > done.length) { parts.push(`${cards.length - done.length} waiting`); }
  find("table").disabled = !done.length;
  find("samples").hidden = Boolean(cards.length) || !find("samples").querySelector("button");
  find("summary").textContent = cards.length ? parts.join(", ") : "";
}

function take(files) {
  for (const file of files) { add(file); }
  summarise();
}

function table() {
  const threshold = Number(find("threshold").value);
  const rows = cards.filter((card) => card.answer).map(({file, answer}) => {
    const label = answer.probability >= threshold ? "FACE" : "NON_FACE";
    const box = answer.place || {};
    return [file.name || "pasted", answer.error ? "" : label, answer.probability, box.x, box.y,
            box.width, box.height, answer.faces?.length, answer.error];
  });
  return [COLUMNS, ...rows].map((row) => row.map(quoted).join(",") + "\r\n").join("");
}

function quoted(value) {
  const text = String(value ?? "");
  const plain = /^[=+@\t\r]/.test(text) ? "'" + text : text; // no formula of a spreadsheet
  return /[",\r\n]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
}

function save(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "text/csv"}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function copy() {
  getSelection().selectAllChildren(find("curl"));
  // Browsers offer the clipboard only to pages of this computer and over TLS.
  await (navigator.clipboard ? navigator.clipboard.writeText(find("curl").textContent)
                             : document.execCommand("copy"));
  find("copy").textContent = "Copied";
}

function addSample(name) {
  const image = new Image();
  image.src = "samples/" + name;
  image.alt = name;
  const button = document.createElement("button");
  button.type = "button";
  button.append(image);
  button.addEventListener("click", async () => {
    const response = await fetch(image.src);
    take([new File([await response.blob()], name, {type: response.headers.get("Content-Type")})]);
  });
  find("samples").append(button);
}

function tellWhere(isLocal) {
  const isHere = isLocal && /^(localhost|127(\.\d+){3}|\[::1\])$/.test(location.hostname);
  const how = location.protocol === "https:" ? "" : " without encryption";
  find("where").textContent = isHere ? "They stay on this computer."
    : `They are sent to ${location.host}${how}, and not stored there.`;
}

function redraw() {
  find("shown").textContent = Number(find("threshold").value).toFixed(2);
  cards.forEach(draw);
  summarise();
}

find("files").addEventListener("change", (event) => {
  take([...event.target.files]);
  event.target.value = "";
});
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    find("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") { take(event.dataTransfer.files); }
  });
}
document.addEventListener("paste", (event) => take(event.clipboardData.files));
find("threshold").addEventListener("input", redraw);
find("boxes").addEventListener("change", redraw);
find("maps").addEventListener("change", () => {
  redraw();
  cards.filter(lacksMap).forEach((card) => classify(card));
});
find("clear").addEventListener("click", () => {
  cards.forEach((card) => URL.revokeObjectURL(card.item.querySelector(".photo").src));
  cards.length = 0;
  find("results").replaceChildren();
  summarise();
});

find("table").addEventListener("click", () => save("faces.csv", table()));
find("copy").addEventListener("click", copy);
find("curl").textContent =
  `curl --data-binary @photo.jpg '${new URL("classify", location.href).href}'`;

fetch("samples/").then((response) => response.json()).then((answer) => {
  answer.samples.forEach(addSample);
  summarise();
});
fetch("healthz").then((response) => response.json()).then((health) => {
  find("model").textContent =
    `${health.model}, input ${health.image_size} × ${health.image_size}`;
  find("threshold").value = health.threshold;
  tellWhere(health.local);
  redraw();
});
