"use strict";
{
  const save = document.querySelector(".save"), kept = document.querySelector(".kept"), memory = {};
  const key = (rating) => `score-fusion rating ${rating.dataset.case} ${rating.dataset.result}`;
  const ratings = [...document.querySelectorAll(".rating")];

  function stored(rating) {
    try { return JSON.parse(localStorage.getItem(key(rating))) || {}; } catch { return memory[key(rating)] || {}; }
  }

  function store(rating, change) {
    const now = { ...stored(rating), ...change, rated: new Date().toISOString().slice(0, 19) + "Z" };
    memory[key(rating)] = now;
    try { localStorage.setItem(key(rating), JSON.stringify(now)); } catch {
      kept.textContent = "This browser keeps nothing for files: save before you leave the page.";
    }
    show();
  }

  function show() {
    for (const rating of ratings) {
      const { verdict = "", comment = "" } = stored(rating), line = rating.querySelector("input");
      for (const button of rating.querySelectorAll("button")) button.setAttribute("aria-pressed", button.value === verdict);
      if (line !== document.activeElement) line.value = comment;
    }
    save.disabled = !ratings.some((rating) => stored(rating).verdict || stored(rating).comment);
  }

  function table() {
    const lines = [["case", "rating", "comment", "rated", "result_sha256"]];
    for (const rating of ratings) {
      const { verdict, comment, rated } = stored(rating);
      const said = (comment || "").replace(/\s+/g, " ").trim();
      if (verdict || said) lines.push([rating.dataset.case, verdict || "n/a", said || "n/a", rated, rating.dataset.result]);
    }
    return lines.map((cells) => cells.join("\t") + "\n").join("");
  }

  for (const rating of ratings) {
    rating.addEventListener("click", ({ target }) => {
      if (target.matches("button")) store(rating, { verdict: target.value === stored(rating).verdict ? "" : target.value });
    });
    rating.querySelector("input").addEventListener("input", ({ target }) => store(rating, { comment: target.value }));
  }
  save.addEventListener("click", () => {
    const href = URL.createObjectURL(new Blob([table()], { type: "text/tab-separated-values" }));
    Object.assign(document.createElement("a"), { href, download: `${save.dataset.file}_ratings.tsv` }).click();
    setTimeout(() => URL.revokeObjectURL(href), 1000);
  });
  for (const event of ["storage", "pageshow"]) window.addEventListener(event, show); // rated in another tab, or on a case's page
  show();
}
