// The list of tasks and the form that adds one.

import { order } from "./api.js";
import { $, h, keyed, text } from "./dom.js";

const TONE = { running: "good", starting: "info", ended: "idle", stopped: "idle", failed: "bad" };

/** `choose(task)` is called with the task to look at; `refresh()` when the list may have changed. */
export function tasksView({ choose, refresh }) {
  const list = $("task-list");
  const form = $("add");
  const note = $("add-note");

  const say = (sentence, tone) => {
    note.dataset.tone = tone ?? "";
    text(note, sentence);
  };

  const command = async (button, sentence, work) => {
    button.disabled = true;
    try {
      await work();
      say(sentence);
    } catch (refusal) {
      say(refusal.message, "bad");
    } finally {
      button.disabled = false;
      refresh();
    }
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const url = form.url.value.trim();
    if (!url) {
      say("Write the path of a video file or the address of a stream.", "bad");
      form.url.focus();
      return;
    }
    command(form.querySelector("button"), `Added ${url}.`, async () => {
      const task = await order("POST", "/api/tasks", { url, repeat: form.repeat.checked });
      form.url.value = "";
      choose(task);
    });
  });

  const create = (task) => {
    const path = `/api/tasks/${encodeURIComponent(task.id)}`;
    const row = h("li", { class: "task" });
    const stop = h("button", { type: "button", "aria-label": `Stop ${task.id}` }, "Stop");
    const remove = h("button", { type: "button", class: "danger", "aria-label": `Delete ${task.id}` }, "Delete");
    stop.addEventListener("click", () => command(stop, `Stopped ${task.id}.`, () => order("POST", `${path}/stop`)));
    remove.addEventListener("click", () => command(remove, `Deleted ${task.id}.`, () => order("DELETE", path)));
    const name = h("button", { type: "button", class: "choose" }, task.id);
    name.addEventListener("click", () => choose(row.task));
    row.append(
      name,
      h("span", { class: "chip state" }),
      h("span", { class: "url" }),
      h("p", { class: "reason", hidden: "" }),
      h("span", { class: "facts" }),
      h("span", { class: "orders" }, stop, remove),
    );
    row.parts = { stop, name };
    return row;
  };

  return {
    update(tasks, chosen) {
      text($("task-count"), tasks.length === 1 ? "1 task" : `${tasks.length} tasks`);
      $("no-tasks").hidden = tasks.length > 0;
      keyed(list, tasks, (task) => task.id, create, (row, task) => {
        row.task = task;
        const chip = row.querySelector(".state");
        row.dataset.chosen = task.id === chosen;
        row.dataset.state = task.state;
        row.parts.name.setAttribute("aria-pressed", task.id === chosen);
        chip.dataset.tone = TONE[task.state] ?? "idle";
        text(chip, task.state);
        text(row.querySelector(".url"), task.url);
        const reason = row.querySelector(".reason");
        reason.hidden = !task.reason;
        text(reason, task.reason ?? "");
        const video = task.video;
        const rate = video?.fps ? ` · ${Math.round(video.fps * 10) / 10} fps` : "";
        const facts = video ? `${video.codec} ${video.width}×${video.height}${rate}` : "";
        text(row.querySelector(".facts"), `stream ${task.stream}${facts ? ` · ${facts}` : ""}`);
        row.parts.stop.hidden = !["running", "starting"].includes(task.state);
      });
    },
  };
}
