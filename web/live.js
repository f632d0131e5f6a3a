// The live picture and the live numbers of the chosen stream.
//
//   stopped ──show──▶ connecting ──picture──▶ live ──broken, or silent──▶ reconnecting ──picture──▶ live
//
// The picture comes as multipart/x-mixed-replace, read part by part: so the page knows when it stops (an <img> that
// reads it by itself does not tell), can say so, and connects again. A page that is slow reads slowly, and the door then
// leaves pictures out.

import { pause } from "./api.js";

const SILENCE_MS = 4000; // even a still stream brings a picture every second
const LONGEST_PART = 32 << 20;

/** The bytes of each part of a multipart answer. */
async function* parts(body, alive) {
  const reader = body.getReader();
  let buffer = new Uint8Array(256 << 10);
  let end = 0;
  let need = 0; // bytes before it is worth looking again
  const decoder = new TextDecoder("latin1");
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      alive();
      if (end + value.length > buffer.length) {
        const larger = new Uint8Array(Math.max(buffer.length * 2, end + value.length));
        larger.set(buffer.subarray(0, end));
        buffer = larger;
      }
      buffer.set(value, end);
      end += value.length;
      while (end >= need) {
        const head = decoder.decode(buffer.subarray(0, Math.min(end, 1024)));
        const stop = head.indexOf("\r\n\r\n");
        const length = stop < 0 ? null : Number(/content-length: *(\d+)/i.exec(head.slice(0, stop))?.[1] ?? NaN);
        if (length === null) {
          if (end >= 1024) throw new Error("a part without a head");
          need = end + 1;
          break;
        }
        if (!(length > 0 && length <= LONGEST_PART)) throw new Error("a part without a length");
        need = stop + 4 + length;
        if (end < need) break;
        yield buffer.slice(stop + 4, need);
        buffer.copyWithin(0, need, end);
        end -= need;
        need = 1;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Shows one stream at a time in an <img>. */
export class LivePicture {
  #stopped = new AbortController();
  #url = null;

  /** `onState(state, sentence)`, `onPicture(time)`. */
  constructor(image, onState, onPicture) {
    Object.assign(this, { image, onState, onPicture });
  }

  show(stream, annotated) {
    this.#stopped.abort();
    this.#stopped = new AbortController();
    this.#run(`/api/streams/${stream}/live.mjpeg?annotated=${annotated ? 1 : 0}`, this.#stopped.signal);
  }

  stop() {
    this.#stopped.abort();
    this.image.hidden = true;
    this.onState("empty", "Choose a task, or add one.");
  }

  async #run(address, stopped) {
    let shown = false;
    let wait = 250;
    this.onState("connecting", "Waiting for the first picture …");
    while (!stopped.aborted) {
      const silent = new AbortController();
      let timer = setTimeout(() => silent.abort(), SILENCE_MS);
      const alive = () => {
        clearTimeout(timer);
        timer = setTimeout(() => silent.abort(), SILENCE_MS);
      };
      let sentence = null;
      try {
        const signal = AbortSignal.any([stopped, silent.signal]);
        const answer = await fetch(address, { signal, cache: "no-store" });
        if (answer.ok) {
          for await (const jpeg of parts(answer.body, alive)) {
            if (stopped.aborted) return;
            await this.#put(jpeg, stopped);
            shown = true;
            wait = 250;
          }
        } else {
          sentence = (await answer.json().catch(() => null))?.detail ?? null;
        }
      } catch {
        // Broken, silent, or stopped: said below.
      }
      clearTimeout(timer);
      if (stopped.aborted) return;
      if (shown) this.onState("reconnecting", "Reconnecting …");
      else this.onState("connecting", sentence ?? "Waiting for the first picture …");
      await pause(wait, stopped);
      wait = Math.min(wait * 1.6, 2000);
    }
  }

  async #put(jpeg, stopped) {
    const url = URL.createObjectURL(new Blob([jpeg], { type: "image/jpeg" }));
    const next = new Image();
    next.src = url;
    try {
      await next.decode(); // shown only whole, so nothing flickers
    } catch {
      URL.revokeObjectURL(url);
      return;
    }
    if (stopped.aborted) return URL.revokeObjectURL(url);
    this.image.src = url;
    this.image.hidden = false;
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = url;
    this.onState("live", "");
    this.onPicture(performance.now());
  }
}

/** Results of one stream at a time, by Server-Sent Events. */
export class LiveResults {
  #source = null;
  #retry = 0;

  constructor(onResult) {
    this.onResult = onResult;
  }

  show(stream) {
    this.stop();
    const source = new EventSource(`/api/streams/${stream}/results`);
    source.addEventListener("result", (event) => this.onResult(JSON.parse(event.data)));
    source.addEventListener("error", () => {
      // A broken connection is tried again by the browser; an error answer is not.
      if (source.readyState === EventSource.CLOSED && this.#source === source) {
        this.#retry = setTimeout(() => this.show(stream), 1000);
      }
    });
    this.#source = source;
  }

  stop() {
    clearTimeout(this.#retry);
    this.#source?.close();
    this.#source = null;
  }
}
