// The page: takes images, hands them to detector.js one after the other, and draws the answers.
// File names are shown by textContent only, so that none of them can be markup.
import {openDetector} from "./detector.js";

const find = (id) => document.getElementById(id);
const cards = []; // {item, file, answer} of each image
const detector = openDetector();
let last = detector.catch(() => {}); // the work on the newest image

function add(file) {
  const item = find("card").content.cloneNode(true).querySelector("li");
  const card = {item, file, answer: null};
  item.querySelector(".photo").src = URL.createObjectURL(file);
  item.querySelector(".name").textContent = item.querySelector(".name").title = file.name || "pasted";
  cards.push(card);
  find("results").append(item);
  last = last.then(() => work(card));
}

async function work(card) {
  if (!cards.includes(card)) { return; } // cleared meanwhile
  await new Promise((resolve) => { setTimeout(resolve); }); // lets the browser draw
  try {
    card.answer = await (await detector).detect(card.file);
  } catch (error) {
    const isImage = !(error instanceof DOMException);
    card.answer = {error: isImage ? `no answer: ${error.message}`
      : card.file.type.startsWith("video/") ? "a video; this page takes images"
        : "not an image that this browser can read"};
  }
  await draw(card);
  summarise();
}

async function draw({item, answer}) {
  const part = (name) => item.querySelector("." + name);
  if (answer.error) {
    item.classList.add("bad");
    part("photo").removeAttribute("src");
    part("label").textContent = answer.error;
    return;
  }
  const {threshold} = (await detector).settings;
  const faces = answer.faces.filter((face) => face.probability >= threshold);
  item.classList.toggle("face", faces.length > 0);
  part("label").textContent =
    faces.length > 1 ? `${faces.length} faces` : faces.length ? "1 face" : "No face";
  part("probability").textContent = answer.probability.toFixed(4);
  part("fill").style.width = 100 * answer.probability + "%";
  part("boxes").replaceChildren(...faces.map((face) => {
    const box = document.createElement("div");
    box.className = "box";
    box.title = face.probability.toFixed(4);
    box.style.left = 100 * face.left + "%";
    box.style.top = 100 * face.top + "%";
    box.style.width = 100 * (face.right - face.left) + "%";
    box.style.height = 100 * (face.bottom - face.top) + "%";
    return box;
  }));
}

function summarise() {
  const done = cards.filter((card) => card.answer);
  const good = done.filter((card) => !card.answer.error);
  const faces = good.filter((card) => card.item.classList.contains("face")).length;
  const parts = [`${faces} with a face`, `${good.length - faces} without`];
  if (done.length > good.length) { parts.push(`${done.length - good.length} unreadable`); }
  if (cards.length > done.length) { parts.push(`${cards.length - done.length} waiting`); }
  find("controls").hidden = !cards.length;
  find("samples").hidden = Boolean(cards.length) || !find("samples").querySelector("button");
  find("summary").textContent = parts.join(", ");
}

function take(files) {
  for (const file of files) { add(file); }
  summarise();
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
find("clear").addEventListener("click", () => {
  cards.forEach((card) => URL.revokeObjectURL(card.item.querySelector(".photo").src));
  cards.length = 0;
  find("results").replaceChildren();
  summarise();
});

summarise();
detector.then(({settings}) => {
  find("model").textContent = `detector ${settings.sha256.slice(0, 8)}, ready`;
  settings.samples.forEach(addSample);
  summarise();
}, (error) => {
  find("model").classList.add("bad");
  find("model").textContent = `The detector could not be loaded: ${error.message}`;
});
