// Talks to the server this page came from, and to nothing else.

/** A refusal by the server, or a connection that failed. */
export class ApiError extends Error {
  /** @param {string} message  @param {number} status  0 when no reply came */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

let key = ""; // in memory only: closing the tab forgets it

/** @param {string} value */
export function useKey(value) {
  key = value;
}

/** @param {string} path  @param {RequestInit} options */
async function request(path, options = {}) {
  const headers = { "Content-Type": "application/json" };
  if (key) headers.Authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ApiError("The server cannot be reached. Is it still running?", 0);
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  throw new ApiError(body?.error?.message ?? `The server answered ${response.status}.`, response.status);
}

/** The served model: {id, context_length, examples}. */
export async function servedModel() {
  return (await (await request("/v1/models")).json()).data[0];
}

/** What seals the server, and how it was tried: {state, network, landlock, attempts, ...}. */
export async function sealReport() {
  return (await request("/v1/seal")).json();
}

/**
 * Streams one answer.
 * @param {{messages: {role: string, content: string}[], thinking: boolean, signal: AbortSignal}} ask
 * @returns {AsyncGenerator<{reasoning: string, content: string, finish: string | null, usage: any}>}
 */
export async function* streamChat({ messages, thinking, signal }) {
  const response = await request("/v1/chat/completions", {
    method: "POST",
    signal,
    body: JSON.stringify({ messages, stream: true, thinking: { type: thinking ? "enabled" : "disabled" } }),
  });
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(chunk.error.message, 500);
    const { delta, finish_reason } = chunk.choices[0];
    yield {
      reasoning: delta.reasoning_content ?? "",
      content: delta.content ?? "",
      finish: finish_reason,
      usage: chunk.usage ?? null,
    };
  }
  throw new ApiError("The answer broke off.", 0);
}

/** The data of each server-sent event; comments are skipped. @param {ReadableStream} stream */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      if (part.startsWith("data: ")) yield part.slice(6);
    }
  }
}
