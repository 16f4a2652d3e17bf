// Draws the conversation. Text of the model enters the page as text nodes only, never as markup.

const announcer = document.getElementById("announcer");

/** @param {string} tag  @param {string} className  @param {string} text */
function element(tag, className = "", text = "") {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  return node;
}

/** @param {HTMLElement} parent  @param {string} text */
export function addUser(parent, text) {
  parent.append(element("li", "user", text));
}

/** @param {HTMLElement} parent  @param {string} message */
export function addFailure(parent, message) {
  const item = element("li", "failure", message);
  item.setAttribute("role", "alert");
  parent.append(item);
}

/** Example questions as buttons. */
export function drawExamples(list, examples, onPick) {
  list.replaceChildren(
    ...examples.map((text) => {
      const item = document.createElement("li");
      const button = element("button", "", text);
      button.type = "button";
      button.addEventListener("click", () => onPick(text));
      item.append(button);
      return item;
    }),
  );
}

/** What the badge opens: the seal in words, then every attempt to get something out of it. */
export function drawSeal(parent, seal) {
  const sealed = seal.state === "sealed";
  const network = seal.network === "empty" ? "Its own network is empty." : `Its network is ${seal.network}.`;
  const files = seal.landlock ? "Files are written to its own folder only." : "Its files are not confined.";
  const words = sealed
    ? `The Linux kernel lets no code in this server open a connection or reach another program. ${network} ${files} ` +
      `When it started, ${seal.attempts.length} attempts to get something out were made on it; all were refused.`
    : "This server runs without the seal: it opens no connections, but nothing forbids it to.";
  parent.replaceChildren(element("p", "", words));
  if (!sealed) return;
  const table = element("table");
  for (const { name, what, answer } of seal.attempts) {
    const row = element("tr");
    row.append(element("th", "", name), element("td", "", what), element("td", "", answer));
    table.append(row);
  }
  parent.append(
    element("h3", "", "What was tried"),
    table,
    element("h3", "", "What no seal covers"),
    list(seal.not_covered, ""),
    element("h3", "", "Check it yourself, on the server"),
    list(seal.commands, "command"),
  );
}

function list(texts, className) {
  const items = element("ul");
  items.append(...texts.map((text) => element("li", className, text)));
  return items;
}

/** One answer while it is written: thought above, answer below, numbers at the end. */
export class AnswerView {
  /** @param {HTMLElement} parent */
  constructor(parent) {
    this.root = element("li", "assistant busy");
    this.thinking = element("details", "thinking");
    this.summary = element("summary", "", "Thinking");
    this.thought = element("div", "thought");
    this.thinking.append(this.summary, this.thought);
    this.thinking.hidden = true;
    this.answer = element("div", "answer");
    this.numbers = element("div", "numbers");
    this.root.append(this.thinking, this.answer, this.numbers);
    parent.append(this.root);
    this.started = performance.now();
    this.firstAt = 0;
    this.thoughtEnd = 0;
    this.unspoken = "";
    this.thoughtNode = this.thought.appendChild(document.createTextNode(""));
    this.answerNode = this.answer.appendChild(document.createTextNode(""));
  }

  get text() {
    return this.answerNode.data;
  }

  /** @param {string} text */
  addReasoning(text) {
    this.#first();
    if (this.thinking.hidden) {
      this.thinking.hidden = false;
      this.thinking.open = true;
    }
    this.thoughtNode.appendData(text);
    this.thought.scrollTop = this.thought.scrollHeight;
    this.summary.textContent = `Thinking ${seconds(performance.now() - this.started)}`;
  }

  /** @param {string} text */
  addContent(text) {
    this.#first();
    this.#endThought();
    this.root.classList.add("answering");
    this.answerNode.appendData(text);
    this.#speak(text);
  }

  /** @param {string} finish  @param {any} usage  @param {number} context */
  finish(finish, usage, context) {
    const now = performance.now();
    this.#endThought();
    this.root.classList.remove("busy");
    this.#say(this.unspoken);
    const facts = [];
    if (usage) {
      const thought = usage.completion_tokens_details.reasoning_tokens;
      if (thought) this.summary.textContent += ` · ${thought} tokens`;
      facts.push(`${usage.completion_tokens} tokens`);
      facts.push(`${Math.round((1000 * usage.completion_tokens) / (now - this.started))} tokens/s`);
    }
    if (this.firstAt) facts.push(`first after ${Math.round(this.firstAt - this.started)} ms`);
    if (usage) facts.push(`${usage.total_tokens} of ${context} context`);
    if (finish === "length") facts.push("cut at the length limit");
    if (finish === "stopped") facts.push("stopped");
    this.numbers.append(...facts.map((fact) => element("span", "", fact)));
    if (this.text) this.numbers.append(this.#copyButton());
  }

  remove() {
    this.root.remove();
  }

  #first() {
    this.firstAt ||= performance.now();
  }

  #endThought() {
    if (this.thinking.hidden || this.thoughtEnd) return;
    this.thoughtEnd = performance.now();
    this.summary.textContent = `Thought for ${seconds(this.thoughtEnd - this.started)}`;
    this.thinking.open = false;
  }

  // Screen readers hear whole sentences: a word at a time is unbearable.
  #speak(text) {
    this.unspoken += text;
    const end = Math.max(...[". ", "! ", "? ", "\n"].map((mark) => this.unspoken.lastIndexOf(mark)));
    if (end < 0) return;
    this.#say(this.unspoken.slice(0, end + 1));
    this.unspoken = this.unspoken.slice(end + 1);
  }

  #say(text) {
    if (text.trim()) announcer.append(element("p", "", text));
  }

  #copyButton() {
    const button = element("button", "", "Copy");
    button.type = "button";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(this.text);
      button.textContent = "Copied";
    });
    return button;
  }
}

/** @param {number} milliseconds */
function seconds(milliseconds) {
  return `${(milliseconds / 1000).toFixed(milliseconds < 10_000 ? 1 : 0)} s`;
}
