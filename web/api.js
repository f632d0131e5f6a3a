// Talking to the door: requests that fail with a sentence, polls that back off, waiting that can be cut short.

/** An answer that is not what was asked for. `status` is 0 when there was no answer. */
export class Refusal extends Error {
  constructor(status, code, detail) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

/** Asks for JSON; throws a `Refusal` with the sentence of the problem document. */
export async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(8000), ...options });
  } catch {
    throw new Refusal(0, "offline", "The system does not answer; trying again.");
  }
  const body = answer.status === 204 ? null : await answer.json().catch(() => null);
  if (!answer.ok && !(options.evenIf ?? []).includes(answer.status)) {
    throw new Refusal(answer.status, body?.code ?? "failed", body?.detail ?? `The door answered ${answer.status}.`);
  }
  return body;
}

/** Sends an order. */
export function order(method, path, body) {
  if (body === undefined) return ask(path, { method });
  return ask(path, { method, body: JSON.stringify(body), headers: { "content-type": "application/json" } });
}

/** Resolves after `ms`, or at once when `signal` is aborted. */
export function pause(ms, signal) {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}

/** Calls `work` every `every` ms, less often while it fails, not at all while the page is hidden. Returns "now". */
export function poll(every, work) {
  let early = new AbortController();
  (async () => {
    let wait = every;
    for (;;) {
      if (!document.hidden) {
        try {
          await work();
          wait = every;
        } catch (error) {
          if (!(error instanceof Refusal)) console.error(error);
          wait = Math.min(wait * 1.5, 5000);
        }
      }
      early = new AbortController();
      await pause(wait, early.signal);
    }
  })();
  const now = () => early.abort();
  document.addEventListener("visibilitychange", () => { if (!document.hidden) now(); });
  return now;
}
