// @ts-check
// Ranking: digits, arrows, the buttons on each reply, and dragging; all of them set the same radio buttons.
"use strict";

(() => {
  const NEAR = 5; // px of movement from which a press is a drag
  let cards = [],
    places = 0,
    lastRanked = null,
    standing = null;

  const idOf = (card) => card.dataset.reply;
  const cardOf = (id) => cards.find((card) => idOf(card) === id);
  const rankOf = (card) => Number(card.querySelector(".ranks input:checked")?.value ?? 0);
  const unranked = () => cards.filter((card) => !rankOf(card));
  const current = (at) => at.closest?.(".reply") ?? unranked()[0] ?? cards[0];

  function setRank(card, rank) {
    for (const input of card.querySelectorAll(".ranks input")) input.checked = Number(input.value) === rank;
    card.querySelector(".ranks input").dispatchEvent(new Event("input", { bubbles: true }));
    if (rank) lastRanked = card;
    const same = cards
      .filter((other) => other !== card && rank && rankOf(other) === rank)
      .map((other) => other.dataset.letter);
    Label.announce(
      `Reply ${card.dataset.letter}: ${rank ? `rank ${rank}` : "no rank"}${same.length ? `, tied with ${same.join(" and ")}` : ""}.`,
    );
  }

  function choose(card) {
    card.focus({ preventScroll: true });
    card.scrollIntoView({ block: "nearest" });
  }

  function rankAndGoOn(card, rank) {
    setRank(card, rank);
    const after = [...cards.slice(cards.indexOf(card)), ...cards].find((other) => !rankOf(other));
    choose(after ?? card);
  }

  const allTied = () => cards.length > 0 && !unranked().length && new Set(cards.map(rankOf)).size === 1;

  // Where all are tied there is nothing to say of how much better the best is.
  function drawStrength() {
    const strength = Label.element.querySelector(".strength");
    const tied = allTied();
    for (const input of strength.querySelectorAll("input")) input.disabled = tied;
    strength.querySelector(".all-tied").hidden = !tied;
  }

  function draw() {
    for (const card of cards) card.querySelector(".clear-rank").hidden = !rankOf(card);
    drawStrength();
    const slot = (place) => {
      const element = document.createElement("div");
      element.className = "slot";
      element.dataset.slot = place;
      const name = document.createElement("span");
      name.className = "place";
      name.textContent = place || "?";
      element.append(name);
      for (const card of cards.filter((c) => rankOf(c) === place)) {
        const chip = document.createElement("span");
        chip.className = "letter";
        chip.dataset.drag = idOf(card);
        chip.textContent = card.dataset.letter;
        element.append(chip);
      }
      return element;
    };
    const slots = Array.from({ length: places }, (_, n) => slot(n + 1));
    standing.replaceChildren(...(unranked().length ? [slot(0)] : []), ...slots);
    standing.hidden = false;
  }

  // The digit of the key: as it is typed, or by its place where the layout types something else there without Shift.
  function digitOf(event) {
    if (/^[0-9]$/.test(event.key)) return Number(event.key);
    const place = event.key.length === 1 && !event.shiftKey ? event.code.match(/^(?:Digit|Numpad)([0-9])$/) : null;
    return place ? Number(place[1]) : -1;
  }

  function key(event) {
    if (!cards.length || !Label.keysAllowed(event)) return;
    const card = current(event.target);
    const inRadio = event.target.matches(".ranks input");
    const isTie = event.key === "=";
    const digit = isTie ? -1 : digitOf(event);
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (digit > places) return;
    if (digit > 0) rankAndGoOn(card, digit);
    else if (digit === 0) setRank(card, 0);
    else if (isTie && lastRanked && lastRanked !== card) rankAndGoOn(card, rankOf(lastRanked));
    else if (Label.keyOf(event) === "f") {
      const more = card.querySelector("details.more");
      more.open = !more.open;
      (more.open ? more.querySelector("input") : card).focus();
    } else if (step && !inRadio) choose(cards[(cards.indexOf(card) + step + cards.length) % cards.length]);
    else if (move && !inRadio)
      setRank(card, Math.min(places, Math.max(1, (rankOf(card) || (move > 0 ? places - 1 : 2)) + move)));
    else return;
    event.preventDefault();
  }

  function dropTarget(x, y) {
    const at = document.elementFromPoint(x, y);
    return at?.closest(".slot") ?? at?.closest(".reply");
  }

  function press(down) {
    const grip = down.target.closest("[data-drag]");
    if (!grip || down.button !== 0 || Label.locked()) return;
    const card = cardOf(grip.dataset.drag);
    let ghost = null,
      over = null;
    const mark = (target) => {
      if (over === target) return;
      over?.classList.remove("over");
      over = target;
      over?.classList.add("over");
    };
    const move = (event) => {
      if (!ghost && Math.hypot(event.clientX - down.clientX, event.clientY - down.clientY) < NEAR) return;
      if (!ghost) {
        ghost = document.createElement("div");
        ghost.className = "letter ghost";
        ghost.textContent = card.dataset.letter;
        document.body.append(ghost);
      }
      ghost.style.translate = `${event.clientX}px ${event.clientY}px`;
      mark(dropTarget(event.clientX, event.clientY));
    };
    const end = (event) => {
      for (const [name, run] of Object.entries({ pointermove: move, pointerup: end, pointercancel: end })) {
        document.removeEventListener(name, run);
      }
      const target = over;
      mark(null);
      ghost?.remove();
      if (event.type === "pointercancel") return;
      if (!ghost) return choose(card);
      if (target?.matches(".slot")) setRank(card, Number(target.dataset.slot));
      else if (target && target !== card && rankOf(target)) setRank(card, rankOf(target));
    };
    down.preventDefault();
    document.addEventListener("pointermove", move);
    document.addEventListener("pointerup", end);
    document.addEventListener("pointercancel", end);
  }

  Label.missing = () => {
    const left = unranked();
    if (!left.length) return "";
    return left.length === 1
      ? `Reply ${left[0].dataset.letter} has no rank yet.`
      : `${left.length} replies have no rank yet.`;
  };

  Label.showMissing = () => choose(unranked()[0]);
  Label.redrawRanks = () => {
    if (cards.length) draw();
  };

  Label.onReady((element) => {
    cards = [...element.querySelectorAll(".reply")];
    lastRanked = null;
    if (!cards.length) return;
    places = cards[0].querySelectorAll(".ranks input").length;
    standing = element.querySelector(".standing");
    draw();
  });
  document.addEventListener("keydown", key);
  Label.root.addEventListener("pointerdown", press);
  Label.root.addEventListener("click", (event) => {
    const card = event.target.closest("[data-clear-rank]")?.closest(".reply");
    if (!card) return;
    setRank(card, 0);
    card.querySelector(".ranks input").focus();
  });
  Label.root.addEventListener("input", (event) => {
    if (!event.target.matches(".ranks input")) return;
    if (event.target.checked) lastRanked = event.target.closest(".reply");
    draw();
  });
})();
