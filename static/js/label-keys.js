// @ts-check
// Keys that need no Ctrl or Alt. They work where no text is being typed, no window is open, nothing is being sent and
// nobody turned them off.

import { eventElement } from "./dom.js";
import { isLocked } from "./label-lock.js";

const SWITCHED_OFF = "label-keys-off"; // in the browser's storage

export function areSingleKeysOff() {
  return localStorage.getItem(SWITCHED_OFF) === "1";
}

/** @param {boolean} off */
export function switchSingleKeysOff(off) {
  localStorage.setItem(SWITCHED_OFF, off ? "1" : "0");
}

/** @param {KeyboardEvent} event */
export function isSingleKey(event) {
  const isTyping = eventElement(event).matches("textarea, select, input:not([type=radio], [type=checkbox])");
  const hasModifier = event.ctrlKey || event.metaKey || event.altKey;
  return !isTyping && !areSingleKeysOff() && !hasModifier && !document.querySelector("dialog[open]");
}

/** @param {KeyboardEvent} event */
export function isAllowedSingleKey(event) {
  return !isLocked() && isSingleKey(event);
}

/**
 * The key as it is labeled on a Latin keyboard. Where the layout types other letters, its place counts.
 * @param {KeyboardEvent} event
 */
export function readKey(event) {
  const isForeign = event.key.length === 1 && event.key > "\u007f";
  const letter = isForeign ? event.code.match(/^Key([A-Z])$/)?.[1] : null;
  return letter ? letter.toLowerCase() : event.key.length === 1 ? event.key.toLowerCase() : event.key;
}

/**
 * The digit of the key, or -1: as it is typed, or by its place where the layout types something else there without Shift.
 * @param {KeyboardEvent} event
 */
export function readDigit(event) {
  if (/^[0-9]$/.test(event.key)) return Number(event.key);
  const place = event.key.length === 1 && !event.shiftKey ? event.code.match(/^(?:Digit|Numpad)([0-9])$/) : null;
  return place ? Number(place[1]) : -1;
}
