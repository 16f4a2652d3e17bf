// The chat page: one conversation, kept in this tab, sent to the server it came from.

import { ApiError, sealReport, servedModel, streamChat, useKey } from "./api.js";
import { AnswerView, addFailure, addUser, drawExamples, drawSeal } from "./view.js";

const $ = (id) => document.getElementById(id);
const SHOWN_EXAMPLES = 8;

/** Turns as the API takes them; of what the model said, only the answers. */
let messages = [];
let running = null; // AbortController of the answer being written
let context = 0;

async function greet() {
  try {
    const model = await servedModel();
    context = model.context_length;
    $("model").textContent = model.id;
    showSeal(await sealReport());
    drawExamples($("examples"), someOf(model.examples), ask);
    if (model.examples.length) {
      $("welcome-text").textContent =
        "A small model that thinks before it answers. It runs on this server; " +
        "your chat stays in this tab and is gone when you close it. It was trained for questions like these:";
    }
  } catch (error) {
    fail(error);
  }
}

/** The first example, and others by chance: who comes again sees what else can be asked. */
function someOf([first = "", ...others]) {
  const drawn = others.map((text) => ({ text, at: Math.random() })).sort((a, b) => a.at - b.at);
  return [first, ...drawn.map(({ text }) => text)].filter(Boolean).slice(0, SHOWN_EXAMPLES);
}

/** @param {{state: string}} seal */
function showSeal(seal) {
  const badge = $("seal");
  badge.hidden = false;
  badge.textContent = seal.state === "sealed" ? "Sealed" : "Not sealed";
  badge.classList.toggle("bad", seal.state !== "sealed");
  drawSeal($("seal-report"), seal);
}

/** @param {string} text */
async function ask(text) {
  if (running) return;
  const conversation = $("conversation");
  $("welcome").hidden = true;
  document.querySelectorAll(".failure").forEach((old) => old.remove());
  addUser(conversation, text);
  const asked = [...messages, { role: "user", content: text }];
  const view = new AnswerView(conversation);
  running = new AbortController();
  const mine = running;
  setBusy(true);
  follow(true);
  let finish = "stopped";
  let usage = null;
  try {
    for await (const piece of streamChat({ messages: asked, thinking: $("think").checked, signal: mine.signal })) {
      if (piece.reasoning) view.addReasoning(piece.reasoning);
      if (piece.content) view.addContent(piece.content);
      if (piece.finish) ({ finish, usage } = piece);
      follow();
    }
  } catch (error) {
    if (!mine.signal.aborted) {
      view.remove();
      conversation.lastElementChild?.remove(); // the question goes back to where it can be changed
      if (!$("prompt").value) $("prompt").value = text;
      fail(error);
      return;
    }
  } finally {
    if (running === mine) setBusy(false);
  }
  if (mine.signal.reason === "new chat") return;
  if (matchMedia("(hover: hover)").matches) $("prompt").focus(); // a touch keyboard would cover the answer
  view.finish(finish, usage, context);
  messages = [...asked, { role: "assistant", content: view.text }];
  follow();
}

/** @param {Error} error */
function fail(error) {
  if (error instanceof ApiError && error.status === 401) {
    $("key-dialog").showModal();
    return;
  }
  addFailure($("conversation"), error instanceof ApiError ? error.message : "Something went wrong on this page.");
  follow(true);
}

/** @param {boolean} busy */
function setBusy(busy) {
  if (!busy) running = null;
  $("send").hidden = busy;
  $("stop").hidden = !busy;
}

function stop() {
  running?.abort();
}

function newChat() {
  running?.abort("new chat");
  setBusy(false);
  messages = [];
  $("conversation").replaceChildren();
  $("announcer").replaceChildren();
  $("welcome").hidden = false;
  $("prompt").focus();
}

/** Keep the end in view, unless the reader has scrolled up. @param {boolean} always */
function follow(always = false) {
  const page = document.documentElement;
  const below = page.scrollHeight - page.scrollTop - page.clientHeight;
  if (always || below < 160) page.scrollTop = page.scrollHeight;
}

function submit() {
  const text = $("prompt").value.trim();
  if (!text || running) return;
  $("prompt").value = "";
  ask(text);
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    submit();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
  if (event.key.toLowerCase() === "o" && event.ctrlKey && event.shiftKey) {
    event.preventDefault();
    newChat();
  }
});
$("stop").addEventListener("click", stop);
$("new-chat").addEventListener("click", newChat);
$("seal").addEventListener("click", () => $("seal-dialog").showModal());
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey($("key").value);
  $("key").value = "";
  $("key-dialog").close();
  greet();
});
$("theme").addEventListener("click", () => {
  const dark = document.documentElement.classList.toggle("dark");
  localStorage.setItem("theme", dark ? "dark" : "light");
});

const wantsDark = matchMedia("(prefers-color-scheme: dark)");
const applyTheme = () => {
  const chosen = localStorage.getItem("theme");
  document.documentElement.classList.toggle("dark", chosen ? chosen === "dark" : wantsDark.matches);
};
wantsDark.addEventListener("change", applyTheme);
applyTheme();
greet();
