// What the page does beside htmx: it plays clips, and sees to it that parts which renew themselves
// disturb nobody. Without it everything can be read and every button works.
"use strict";

document.documentElement.classList.add("scripted");

// Parts that renew themselves.

const lost = document.getElementById("lost");
const announce = document.getElementById("announce");
const pause = document.getElementById("pause");
let paused = false;

if (pause) {
  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Updates are paused" : "Pause updates";
  });
}

// Whether somebody would be disturbed by another content of a part.
function isInUse(part) {
  if (!part.hasAttribute("data-careful")) {
    return false;
  }
  const typed = [...part.querySelectorAll("input:not(.seek)")].some((field) => field.value !== field.defaultValue);
  const chosen = [...part.querySelectorAll("select")].some((field) => field.selectedIndex > 0);
  return typed || chosen || part.contains(document.activeElement) || part.querySelector(".player.opened") !== null;
}

document.addEventListener("htmx:beforeRequest", (event) => {
  const part = event.target;
  if (part.classList.contains("part") && (paused || document.hidden || isInUse(part))) {
    event.preventDefault();
  }
});

// It may have come into use while the answer was on its way.
document.addEventListener("htmx:beforeSwap", (event) => {
  const part = event.detail.elt || event.target;
  if (part.classList.contains("part") && isInUse(part)) {
    event.detail.shouldSwap = false;
  }
});

let opened = [];
document.addEventListener("htmx:beforeSwap", (event) => {
  opened = [...event.target.querySelectorAll("details[open][id]")].map((each) => each.id);
});

document.addEventListener("htmx:afterSwap", () => {
  for (const id of opened) {
    const details = document.getElementById(id);
    if (details) {
      details.open = true;
    }
  }
  tell();
  reach();
});

// Tables that are wider than their place scroll: then keys must reach them, and only then.
function reach() {
  for (const wide of document.querySelectorAll(".wide, pre")) {
    if (wide.scrollWidth > wide.clientWidth) {
      wide.tabIndex = 0;
    } else {
      wide.removeAttribute("tabindex");
    }
  }
}

reach();
window.addEventListener("resize", reach);

// What is said aloud: the one sentence of the page that matters, when it has changed.
let told = sentence();

function sentence() {
  const element = document.querySelector("[data-announce]");
  return element ? element.dataset.announce : "";
}

function tell() {
  const now = sentence();
  if (announce && now !== told) {
    told = now;
    announce.textContent = now;
  }
}

function lose(words) {
  if (lost.textContent !== words) {
    lost.textContent = words;
  }
  lost.hidden = false;
}

document.addEventListener("htmx:sendError", () => {
  lose("The node does not answer. What you see may be old; the page goes on asking.");
});

document.addEventListener("htmx:responseError", (event) => {
  lose(`The node answered with ${event.detail.xhr.status}. What you see may be old; load the page again.`);
});

document.addEventListener("htmx:afterRequest", (event) => {
  if (event.detail.successful) {
    lost.hidden = true;
    lost.textContent = "";
  }
});

// Clips.

const AT_ONCE = 4; // requests for frames
const films = new WeakMap();

class Film {
  constructor(player) {
    this.player = player;
    this.button = player.querySelector(".play");
    this.seek = player.querySelector(".seek");
    this.at = player.querySelector(".at");
    this.frames = [];
    this.index = 0;
    this.playing = false;
    this.began = 0;
  }

  async open() {
    const address = this.player.dataset.frames;
    const answer = await fetch(address, { headers: { accept: "application/json" } });
    if (!answer.ok) {
      const problem = await answer.json().catch(() => ({}));
      throw new Error(problem.detail || `the node answered with ${answer.status}`);
    }
    this.plan = await answer.json();
    const count = this.plan.frames.length;
    const waiting = this.plan.frames.map((number, index) => [number, index]);
    let done = 0;
    const take = async () => {
      for (let next = waiting.shift(); next; next = waiting.shift()) {
        const image = new Image();
        image.src = `${address}/${next[0]}.jpg`;
        await image.decode();
        this.frames[next[1]] = image;
        done += 1;
        this.at.textContent = `${done} of ${count}`;
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, take));
    this.canvas = document.createElement("canvas");
    const poster = this.player.querySelector("img");
    this.canvas.width = this.frames[0].naturalWidth;
    this.canvas.height = this.frames[0].naturalHeight;
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", poster.alt);
    poster.replaceWith(this.canvas);
    this.seek.max = String(count);
    this.seek.disabled = false;
    this.player.classList.add("opened");
    this.index = Math.max(0, this.plan.frames.indexOf(this.plan.poster));
    this.show();
  }

  show() {
    const number = this.plan.frames[this.index];
    this.canvas.getContext("2d").drawImage(this.frames[this.index], 0, 0);
    this.seek.value = String(this.index + 1);
    this.seek.setAttribute("aria-valuetext", `frame ${number}, ${Math.round(this.plan.times_ms[this.index])} ms`);
    this.at.textContent = `${this.index + 1} / ${this.frames.length}`;
    this.player.dataset.shown = String(number);
  }

  play() {
    this.playing = true;
    this.button.textContent = "Pause";
    if (this.index === this.frames.length - 1) {
      this.index = 0;
    }
    this.began = performance.now() - this.plan.times_ms[this.index];
    requestAnimationFrame((now) => this.step(now));
  }

  pause() {
    this.playing = false;
    this.button.textContent = "Play";
  }

  step(now) {
    if (!this.playing || !this.canvas.isConnected) {
      return;
    }
    const lasts = Math.max(this.plan.lasts_ms, 1);
    const time = (now - this.began) % lasts;
    let index = this.plan.times_ms.findIndex((each) => each > time);
    index = (index < 0 ? this.frames.length : Math.max(index, 1)) - 1;
    if (index !== this.index) {
      this.index = index;
      this.show();
    }
    requestAnimationFrame((next) => this.step(next));
  }
}

async function press(player) {
  let film = films.get(player);
  if (film && film.frames.length && film.canvas) {
    film.playing ? film.pause() : film.play();
    return;
  }
  if (film) {
    return; // its frames are on their way
  }
  film = new Film(player);
  films.set(player, film);
  try {
    await film.open();
    film.play();
  } catch (error) {
    films.delete(player);
    film.at.textContent = "–";
    const words = document.createElement("p");
    words.className = "refused";
    words.setAttribute("role", "alert");
    words.textContent = `It cannot be played: ${error.message}`;
    player.querySelector(".refused")?.remove();
    player.append(words);
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest(".play");
  if (button) {
    press(button.closest(".player"));
  }
});

document.addEventListener("input", (event) => {
  if (!event.target.matches(".seek")) {
    return;
  }
  const film = films.get(event.target.closest(".player"));
  if (film && film.canvas) {
    film.pause();
    film.index = Number(event.target.value) - 1;
    film.show();
  }
});

// A picture that cannot be made leaves its words.
document.addEventListener(
  "error",
  (event) => {
    if (event.target.matches?.(".screen img")) {
      event.target.closest(".screen").textContent = "No picture: nothing outside the sector is shown, or its file is gone.";
    }
  },
  true,
);
