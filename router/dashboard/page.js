// The page: fetches data from the router periodically. The key, if required, is stored only in this tab.

import { drawKeys, drawTeams, startKeys } from "./keys.js";
import { drawCurve, drawLearnt, drawNow, drawReasons, drawRecent, drawTime, drawTop, drawTypes, explained } from "./sections.js";
import { drawWatched } from "./watched.js";
import { element, percent, plural } from "./words.js";

const $ = (id) => document.getElementById(id);
const KEY = "router-key";
const RECENT_EVERY = 1500, OVERVIEW_EVERY = 4000, KEYS_EVERY = 10000, ANNOUNCE_EVERY = 20000;

const page = { policy: null, overview: null, window: "hour", sort: "cost", all: false, paused: false, fresh: 0, announced: Date.now(), key: sessionStorage.getItem(KEY) || "" };

class Refused extends Error {}

async function ask(path, body, method = body === undefined ? "GET" : "POST") {
  const headers = page.key ? { authorization: `Bearer ${page.key}` } : {};
  const options = body === undefined ? { method, headers } : { method, headers: { ...headers, "content-type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(path, { ...options, cache: "no-store" });
  if (answer.status === 401) throw new Refused();
  const result = await answer.json();
  if (answer.status === 403) throw new Refused(result.error.message); // not an admin key
  if (!answer.ok) throw new Error(result.error ? result.error.message : `The router returned status ${answer.status}.`);
  return result;
}

function state(kind, text) {
  $("state").className = `badge ${kind}`;
  if ($("state-text").textContent !== text) $("state-text").textContent = text;
}

function locked(isLocked) {
  $("key-form").hidden = !isLocked;
  $("main").hidden = isLocked;
  if (isLocked) {
    state("warn", "Key required");
    if (page.key) $("key-note").textContent = page.denied || "The router does not accept this key.";
    if (document.activeElement === document.body) $("key").focus();
  }
}

async function policy(version) {
  if (page.policy && (!version || page.policy.version === version)) return;
  page.policy = await ask("/router/policy");
  const choices = page.policy.targets.map(({ target, certified, quality_per_usd: price }) => element("option", { value: String(target) }, `${percent(target, target * 100 % 1 ? 1 : 0)}${certified ? "" : price === null ? ", not certified" : ", expected"}`));
  const chosen = $("target").value;
  $("target").replaceChildren(element("option", { value: "" }, `as auto (${percent(page.policy.default_target, 0)})`), ...choices);
  if (chosen) $("target").value = chosen;
}

async function overview() {
  let data;
  try {
    data = await ask(`/router/overview?window=${page.window}`);
  } catch (error) {
    page.denied = error instanceof Refused ? error.message : page.denied;
    throw error;
  }
  page.denied = "";
  if (data.window !== page.window) return; // another period was selected in the meantime
  await policy(data.policy_version);
  locked(false); // before drawing: hidden elements have no size
  page.overview = data;
  draw();
}

function draw() {
  if (!page.overview || !page.policy) return;
  drawTop(page.policy, page.overview);
  drawLearnt(page.policy, page.overview);
  drawNow(page.policy, page.overview);
  drawTime(page.policy, page.overview);
  drawCurve(page.policy, page.overview);
  drawTypes(page.policy, page.overview, page);
  drawReasons(page.overview);
  drawWatched(page.policy, page.overview);
}

async function recent() {
  if (page.denied) throw new Refused(page.denied); // a key that is not an admin key sees only its own requests
  if (page.paused) return;
  const { requests } = await ask("/router/recent");
  await policy();
  if (page.denied) throw new Refused(page.denied); // denied in the meantime
  locked(false);
  page.fresh += drawRecent(page.policy, requests);
  const quiet = Date.now() - page.announced;
  if (page.fresh && quiet > ANNOUNCE_EVERY) { // for screen readers: a summary instead of each row
    $("announce").textContent = `${plural(page.fresh, "new request")}. ${$("headline").textContent}`;
    page.fresh = 0;
    page.announced = Date.now();
  }
}

async function keys() {
  if (page.denied) throw new Refused(page.denied);
  drawKeys(await ask("/router/keys"));
  drawTeams(await ask("/router/teams"));
}

// Poll with backoff while the router is unavailable. Pause while the page is hidden.
async function keepPolling(fetchAndDraw, every) {
  for (let wait = every; ; ) {
    try {
      if (!document.hidden) {
        await fetchAndDraw();
        state(page.paused ? "" : "good", page.paused ? "Paused" : "Live");
      }
      wait = every;
    } catch (error) {
      if (error instanceof Refused) locked(true);
      else state("bad", "Router unreachable");
      wait = Math.min(wait * 1.5, 15000);
    }
    await new Promise((done) => { page.wake = [...(page.wake || []), done]; setTimeout(done, wait); });
  }
}

function wake() {
  for (const done of page.wake || []) done();
  page.wake = [];
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  page.key = $("key").value.trim();
  page.denied = "";
  sessionStorage.setItem(KEY, page.key);
  $("key").value = "";
  wake();
});

$("windows").addEventListener("change", (event) => {
  page.window = event.target.value;
  overview().catch(() => wake());
});

$("sort").addEventListener("change", (event) => { page.sort = event.target.value; draw(); });
$("all-types").addEventListener("click", () => { page.all = !page.all; draw(); });

$("pause").addEventListener("click", () => {
  page.paused = !page.paused;
  $("pause").setAttribute("aria-pressed", String(page.paused));
  $("pause").textContent = page.paused ? "Resume" : "Pause";
  wake();
});

$("try").addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = { model: $("target").value ? `auto@${$("target").value}` : "auto", messages: [{ role: "user", content: $("question").value }] };
  try {
    await policy();
    const decision = await ask("/router/decision", body);
    $("tried").replaceChildren(explained(page.policy, {}, decision));
    draw(); // the height of the curve beside it has changed
  } catch (error) {
    $("tried").replaceChildren(element("p", { class: "bad-text" }, error instanceof Refused ? "A key is required." : error.message));
  }
});

document.addEventListener("visibilitychange", wake);
let redraw = 0;
addEventListener("resize", () => { clearTimeout(redraw); redraw = setTimeout(draw, 120); });

keepPolling(overview, OVERVIEW_EVERY);
keepPolling(recent, RECENT_EVERY);
startKeys(ask, keys);
keepPolling(keys, KEYS_EVERY);
