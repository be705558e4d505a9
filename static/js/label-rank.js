// @ts-check
// Ranking: digits, arrows, the buttons on each reply, and dragging; all of them set the same radio buttons.

import { closestElement, eventElement, findElement, findElements } from "./dom.js";
import { isAllowedSingleKey, readDigit, readKey } from "./label-keys.js";
import { isLocked } from "./label-lock.js";
import { announce, labelElement, labelRoot } from "./label-page.js";

const DRAG_FROM = 5; // px of movement from which a press is a drag

/** @type {HTMLElement[]} */
let cards = [];
let places = 0;
/** @type {HTMLElement | null} */
let lastRanked = null;
/** @type {HTMLElement | null} */
let standing = null;

/**
 * @param {HTMLElement} card
 * @returns {HTMLInputElement[]}
 */
function rankInputs(card) {
  return [...card.querySelectorAll(".ranks input")].map((input) => /** @type {HTMLInputElement} */ (input));
}

/** @param {HTMLElement} card */
function rankOf(card) {
  return Number(rankInputs(card).find((input) => input.checked)?.value ?? 0);
}

function unrankedCards() {
  return cards.filter((card) => !rankOf(card));
}

// ---- setting a rank

/**
 * @param {HTMLElement} card
 * @param {number} rank 0 for none
 */
function setRank(card, rank) {
  for (const input of rankInputs(card)) input.checked = Number(input.value) === rank;
  rankInputs(card)[0].dispatchEvent(new Event("input", { bubbles: true }));
  if (rank) lastRanked = card;
  const tied = cards.filter((other) => other !== card && rank && rankOf(other) === rank);
  const letters = tied.map((other) => other.dataset.letter);
  announce(
    `Reply ${card.dataset.letter}: ${rank ? `rank ${rank}` : "no rank"}` +
      `${letters.length ? `, tied with ${letters.join(" and ")}` : ""}.`,
  );
}

/** @param {HTMLElement} card */
function focusCard(card) {
  card.focus({ preventScroll: true });
  card.scrollIntoView({ block: "nearest" });
}

/**
 * @param {HTMLElement} card
 * @param {number} rank
 */
function rankAndGoOn(card, rank) {
  setRank(card, rank);
  const next = [...cards.slice(cards.indexOf(card)), ...cards].find((other) => !rankOf(other));
  focusCard(next ?? card);
}

// ---- the standing: the letters of the replies at their places

// Where all are tied there is nothing to say of how much better the best is.
function drawStrength() {
  const strength = labelElement().querySelector(".strength");
  const areAllTied = cards.length > 0 && !unrankedCards().length && new Set(cards.map(rankOf)).size === 1;
  for (const input of strength.querySelectorAll("input")) input.disabled = areAllTied;
  findElement(".all-tied", strength).hidden = !areAllTied;
}

/** @param {number} place 0 for the replies without a rank */
function createSlot(place) {
  const slot = document.createElement("div");
  slot.className = "slot";
  slot.dataset.slot = String(place);
  const name = document.createElement("span");
  name.className = "place";
  name.textContent = String(place || "?");
  slot.append(name);
  for (const card of cards.filter((other) => rankOf(other) === place)) {
    const chip = document.createElement("span");
    chip.className = "letter";
    chip.dataset.drag = card.dataset.reply;
    chip.textContent = card.dataset.letter;
    slot.append(chip);
  }
  return slot;
}

/** Show the ranks that the form has. */
export function drawRanks() {
  if (!cards.length) return;
  for (const card of cards) findElement(".clear-rank", card).hidden = !rankOf(card);
  drawStrength();
  const slots = Array.from({ length: places }, (_, index) => createSlot(index + 1));
  standing.replaceChildren(...(unrankedCards().length ? [createSlot(0)] : []), ...slots);
  standing.hidden = false;
}

/** What is missing before the task can be submitted, or nothing. */
export function describeMissingRanks() {
  const unranked = unrankedCards();
  if (!unranked.length) return "";
  return unranked.length === 1
    ? `Reply ${unranked[0].dataset.letter} has no rank yet.`
    : `${unranked.length} replies have no rank yet.`;
}

export function focusUnrankedReply() {
  focusCard(unrankedCards()[0]);
}

/** Take over the replies of the task that is shown now. */
export function startRanking() {
  cards = findElements(".reply", labelElement());
  lastRanked = null;
  if (!cards.length) return;
  places = rankInputs(cards[0]).length;
  standing = findElement(".standing", labelElement());
  drawRanks();
}

// ---- keys and the pointer

/** @param {KeyboardEvent} event */
function handleKey(event) {
  if (!cards.length || !isAllowedSingleKey(event)) return;
  const card = closestElement(event, ".reply") ?? unrankedCards()[0] ?? cards[0];
  const isInRadio = eventElement(event).matches(".ranks input");
  const isTie = event.key === "=";
  const digit = isTie ? -1 : readDigit(event);
  const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (digit > places) return;
  if (digit > 0) rankAndGoOn(card, digit);
  else if (digit === 0) setRank(card, 0);
  else if (isTie && lastRanked && lastRanked !== card) rankAndGoOn(card, rankOf(lastRanked));
  else if (readKey(event) === "f") toggleFlags(card);
  else if (step && !isInRadio) focusCard(cards[(cards.indexOf(card) + step + cards.length) % cards.length]);
  else if (move && !isInRadio) {
    const from = rankOf(card) || (move > 0 ? places - 1 : 2);
    setRank(card, Math.min(places, Math.max(1, from + move)));
  } else return;
  event.preventDefault();
}

/** @param {HTMLElement} card */
function toggleFlags(card) {
  /** @type {HTMLDetailsElement} */
  const flags = card.querySelector("details.more");
  flags.open = !flags.open;
  (flags.open ? flags.querySelector("input") : card).focus();
}

/**
 * @param {number} x
 * @param {number} y
 * @returns {HTMLElement | null}
 */
function findDropTarget(x, y) {
  const element = document.elementFromPoint(x, y);
  return element?.closest(".slot") ?? element?.closest(".reply");
}

/** @param {PointerEvent} down */
function startDrag(down) {
  const grip = closestElement(down, "[data-drag]");
  if (!grip || down.button !== 0 || isLocked()) return;
  const card = cards.find((other) => other.dataset.reply === grip.dataset.drag);
  /** @type {HTMLElement | null} */
  let ghost = null;
  /** @type {HTMLElement | null} */
  let over = null;
  /** @param {HTMLElement | null} target */
  const markTarget = (target) => {
    if (over === target) return;
    over?.classList.remove("over");
    over = target;
    over?.classList.add("over");
  };
  /** @param {PointerEvent} event */
  const move = (event) => {
    if (!ghost && Math.hypot(event.clientX - down.clientX, event.clientY - down.clientY) < DRAG_FROM) return;
    if (!ghost) {
      ghost = document.createElement("div");
      ghost.className = "letter ghost";
      ghost.textContent = card.dataset.letter;
      document.body.append(ghost);
    }
    ghost.style.translate = `${event.clientX}px ${event.clientY}px`;
    markTarget(findDropTarget(event.clientX, event.clientY));
  };
  /** @param {PointerEvent} event */
  const end = (event) => {
    document.removeEventListener("pointermove", move);
    document.removeEventListener("pointerup", end);
    document.removeEventListener("pointercancel", end);
    const target = over;
    markTarget(null);
    ghost?.remove();
    if (event.type === "pointercancel") return;
    if (!ghost) focusCard(card);
    else if (target?.matches(".slot")) setRank(card, Number(target.dataset.slot));
    else if (target && target !== card && rankOf(target)) setRank(card, rankOf(target));
  };
  down.preventDefault();
  document.addEventListener("pointermove", move);
  document.addEventListener("pointerup", end);
  document.addEventListener("pointercancel", end);
}

document.addEventListener("keydown", handleKey);
labelRoot.addEventListener("pointerdown", startDrag);
labelRoot.addEventListener("click", (event) => {
  /** @type {HTMLElement | null} */
  const card = closestElement(event, "[data-clear-rank]")?.closest(".reply");
  if (!card) return;
  setRank(card, 0);
  rankInputs(card)[0].focus();
});
labelRoot.addEventListener("input", (event) => {
  if (!eventElement(event).matches(".ranks input")) return;
  if (/** @type {HTMLInputElement} */ (event.target).checked) lastRanked = closestElement(event, ".reply");
  drawRanks();
});
