// Drives the page of a running system in headless Chromium.
//
//   node run.mjs URL [--screenshot FILE] [--phone-screenshot FILE] [--kill-pid PID] [--no-boxes]
//
// Checks, in this order: the live picture comes and changes; boxes are drawn and can be switched off; counts, tasks and
// processes with pids are shown; the page fits a phone; the keyboard reaches everything and shows where it is; nothing
// was complained about on the console. With --kill-pid that process (a gateway worker) is killed, and the picture must
// move again. Exits with 0, or with 1 and one sentence. Chromium is /usr/bin/chromium, or what CHROMIUM names.
//
// A live picture never "finishes loading", so nothing here waits for a quiet network; every wait is for a fact, and its
// limit is a watchdog.

import { kill } from "node:process";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";

const WATCHDOG_MS = 30_000;
// Each sample is this wide; enough to see boxes, little enough to compare quickly.
const SAMPLE = { width: 400, height: 300 };

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    screenshot: { type: "string" },
    "phone-screenshot": { type: "string" },
    "kill-pid": { type: "string" },
    "no-boxes": { type: "boolean", default: false },
  },
});
const url = positionals[0];
if (!url) {
  console.error("usage: node run.mjs URL [--screenshot FILE] [--phone-screenshot FILE] [--kill-pid PID] [--no-boxes]");
  process.exit(2);
}

class Failed extends Error {}
const fail = (sentence) => { throw new Failed(sentence); };
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until `probe` gives something true. */
async function until(what, probe, limit = WATCHDOG_MS) {
  const begin = Date.now();
  for (;;) {
    const value = await probe();
    if (value) return value;
    if (Date.now() - begin > limit) fail(`waited ${limit / 1000} s in vain until ${what}`);
    await pause(100);
  }
}

/**
 * What the live <img> shows now, in numbers; null while it shows nothing. `change` is the share of pixels that differ
 * visibly from the last look. Pixels stay in the page: only numbers travel.
 */
const look = (page) => page.evaluate(({ width, height }) => {
  const image = document.getElementById("live-image");
  if (!image || image.hidden || !image.complete || image.naturalWidth === 0) return null;
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  const luma = new Uint8Array(width * height);
  const last = window.lastLook;
  let [green, sum, different] = [0, 0, 0];
  for (let i = 0; i < luma.length; i += 1) {
    const [r, g, b] = [data[4 * i], data[4 * i + 1], data[4 * i + 2]];
    luma[i] = (r * 77 + g * 150 + b * 29) >> 8;
    sum += luma[i];
    if (last && Math.abs(luma[i] - last[i]) > 12) different += 1;
    // The colour in which cars are outlined and labelled: green far above both others.
    if (g > 120 && g - r > 70 && g - b > 60) green += 1;
  }
  window.lastLook = luma;
  return { green, mean: sum / luma.length, change: different / luma.length, size: [image.naturalWidth, image.naturalHeight] };
}, SAMPLE);

const state = (page) => page.locator("#live").getAttribute("data-state");

/** Waits until the picture changes, that often. */
async function changes(page, times, what) {
  for (let seen = 0; seen < times;) {
    await until(what, async () => ((await look(page))?.change ?? 0) > 0.0005);
    seen += 1;
  }
}

/** Most green pixels seen in some looks at different pictures. */
async function greenest(page, looks) {
  let best = 0;
  for (let i = 0; i < looks; i += 1) {
    await pause(120);
    best = Math.max(best, (await look(page))?.green ?? 0);
  }
  return best;
}

async function livePicture(page) {
  const first = await until("the live picture shows something", async () => {
    const now = await look(page);
    return now && (await state(page)) === "live" ? now : null;
  });
  if (first.mean < 2) fail("the live picture is black");
  await changes(page, 3, "the live picture changes");
  return first.size;
}

async function boxes(page) {
  const on = await until("boxes are drawn into the live picture", async () => {
    const green = await greenest(page, 5);
    return green > 60 ? green : 0;
  });
  const toggle = page.getByRole("switch", { name: "Boxes" });
  await toggle.uncheck({ force: true });
  await until("the picture without boxes is live", async () => (await state(page)) === "live" && look(page));
  // Until the first clean picture is there the last annotated one is still shown.
  const off = await until("boxes go away when they are switched off", async () => {
    const green = await greenest(page, 3);
    return green < on / 3 ? green + 1 : 0;
  });
  await toggle.check({ force: true });
  await until("boxes come back when they are switched on", async () => (await greenest(page, 3)) > on / 3);
  return { on, off: off - 1 };
}

async function numbers(page) {
  await until("a task is shown as running", () => page.locator('.task[data-state="running"]').count());
  await until("counts of road users are shown", async () => {
    const shown = await page.locator("#tiles dd").allTextContents();
    return shown.some((text) => /[1-9]\d* in all/.test(text));
  });
  await until("the latency of results is shown", async () => /\d/.test(await page.locator("#p50").textContent()));
  const rows = await until("processes with their pids are shown", async () => {
    const cells = await page.locator("#processes tr").evaluateAll((rows) => rows.map((row) => [...row.children].map((cell) => cell.textContent)));
    const named = (name) => cells.some((cell) => cell[0].startsWith(name) && /^\d+$/.test(cell[1]));
    return ["rmmt", "vas", "vss", "wmits", "preview", "gateway"].every(named) ? cells : null;
  });
  await until("the pool's audit balances", async () => (await page.locator("#audit").textContent()) === "audit balances");
  await until("the header says that all is well", async () => (await page.locator("#health").getAttribute("data-state")) === "ok");
  return rows.length;
}

async function phone(page) {
  await page.setViewportSize({ width: 390, height: 844 });
  await pause(300); // one layout
  const wide = await page.evaluate(() => {
    const limit = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth <= limit) return null;
    const out = [...document.querySelectorAll("body *")].find((e) => e.getBoundingClientRect().right > limit + 1);
    return out ? `${out.tagName.toLowerCase()}.${out.className}` : "something";
  });
  if (wide) fail(`on a phone the page is wider than the screen: ${wide}`);
  if (options["phone-screenshot"]) await page.screenshot({ path: options["phone-screenshot"], fullPage: true });
  await page.setViewportSize({ width: 1280, height: 800 });
}

async function keyboard(page) {
  await page.evaluate(() => { document.activeElement?.blur?.(); window.scrollTo(0, 0); });
  const wanted = new Set(["theme", "boxes", "snapshot", "url", "repeat"]);
  for (let i = 0; i < 40 && wanted.size > 0; i += 1) {
    await page.keyboard.press("Tab");
    const focus = await page.evaluate(() => {
      const element = document.activeElement;
      // A switch shows its focus on the part that is drawn.
      const shown = element.id === "boxes" ? element.nextElementSibling : element;
      const { outlineStyle, outlineWidth } = getComputedStyle(shown);
      return { id: element.id, what: `${element.tagName.toLowerCase()} ${element.id || element.textContent}`, seen: outlineStyle !== "none" && parseFloat(outlineWidth) >= 2 };
    });
    if (focus.what.startsWith("body")) continue;
    if (!focus.seen) fail(`the keyboard's focus cannot be seen on: ${focus.what}`);
    wanted.delete(focus.id);
  }
  if (wanted.size > 0) fail(`the keyboard does not reach: ${[...wanted].join(", ")}`);
}

async function unlabelled(page) {
  const nameless = await page.evaluate(() => [...document.querySelectorAll("button, a[href], input, img")]
    .filter((e) => !(e.labels?.length || e.getAttribute("aria-label") || e.textContent.trim() || e.hasAttribute("alt")))
    .map((e) => e.outerHTML.slice(0, 80)));
  if (nameless.length > 0) fail(`without a name for people who do not see it: ${nameless[0]}`);
}

/** Contrast of all visible text against what lies behind it (WCAG 2.2, 1.4.3), for one theme. */
async function contrast(page, theme) {
  const poor = await page.evaluate(() => {
    const parse = (color) => (/rgba?\(([^)]+)\)/.exec(color)?.[1] ?? "0,0,0,0").split(/[ ,/]+/).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = (element) => {
      for (let e = element; e; e = e.parentElement) {
        const color = parse(getComputedStyle(e).backgroundColor);
        if ((color[3] ?? 1) > 0.7) return color;
      }
      return [0, 0, 0];
    };
    const found = [];
    for (const element of document.querySelectorAll("body *")) {
      const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
      if (!own || !element.checkVisibility() || element.closest(".skip, :disabled, [aria-disabled=true]")) continue;
      const [a, b] = [light(parse(getComputedStyle(element).color)), light(behind(element))].sort((x, y) => y - x);
      const ratio = (a + 0.05) / (b + 0.05);
      if (ratio < 4.5) found.push(`${element.textContent.trim().slice(0, 30)} (${ratio.toFixed(2)}:1)`);
    }
    return found;
  });
  if (poor.length > 0) fail(`too little contrast in the ${theme} theme: ${poor.slice(0, 3).join("; ")}`);
}

async function reconnect(page, pid) {
  await look(page);
  const begin = Date.now();
  kill(pid, "SIGKILL");
  // Either this worker served us, then the picture must come back, or another did, then it must not even notice.
  await until("the killed worker has ended", () => {
    try {
      return !kill(pid, 0);
    } catch {
      return true;
    }
  });
  await changes(page, 10, "the picture moves again after a worker was killed");
  await until("the page is live again", async () => (await state(page)) === "live");
  return Date.now() - begin;
}

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
  headless: true,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
try {
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
  const complaints = [];
  let expectBreak = false;
  page.on("console", (message) => {
    if (message.type() !== "error" && message.type() !== "warning") return;
    // A killed worker is a broken connection, which the browser itself notes.
    if (expectBreak && /Failed to load resource/.test(message.text())) return;
    complaints.push(`${message.text()} (${message.location().url})`);
  });
  page.on("pageerror", (error) => complaints.push(`uncaught: ${error.message}`));
  const answer = await page.goto(url, { waitUntil: "domcontentloaded" });
  if (!answer?.ok()) fail(`the page answered ${answer?.status()}`);

  const size = await livePicture(page);
  console.log(`ok: the live picture (${size.join("×")}) comes and changes`);
  if (!options["no-boxes"]) {
    const seen = await boxes(page);
    console.log(`ok: boxes are drawn (${seen.on} green pixels of ${SAMPLE.width}×${SAMPLE.height}; ${seen.off} when switched off)`);
    console.log(`ok: tasks, counts and ${await numbers(page)} processes with pids are shown`);
  }
  await unlabelled(page);
  await contrast(page, "dark");
  await page.locator("#theme").click();
  await contrast(page, "light");
  await page.locator("#theme").click();
  console.log("ok: everything has a name; contrast is 4.5:1 or more in both themes");
  if (options.screenshot) {
    await page.evaluate(() => { document.activeElement?.blur?.(); window.scrollTo(0, 0); });
    await page.screenshot({ path: options.screenshot });
  }
  await phone(page);
  console.log("ok: a phone shows the page without sideways scrolling");
  await keyboard(page);
  console.log("ok: the keyboard reaches everything and shows where it is");
  if (options["kill-pid"]) {
    expectBreak = true;
    const took = await reconnect(page, Number(options["kill-pid"]));
    console.log(`ok: the picture moves again after process ${options["kill-pid"]} was killed (${took} ms)`);
  }
  if (complaints.length > 0) fail(`the browser's console complains: ${complaints[0]}`);
  console.log("ok: the console is silent");
} catch (error) {
  if (!(error instanceof Failed)) console.error(error);
  console.error(`browser test failed: ${error.message.split("\n")[0]}`);
  process.exitCode = 1;
} finally {
  await browser.close();
}
