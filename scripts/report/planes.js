"use strict";
const planes = [...document.querySelectorAll(".plane")];

function show(plane) {
  const slider = plane.querySelector("input"), columns = Number(plane.dataset.columns), index = Number(slider.value);
  const label = JSON.parse(plane.dataset.labels)[index];
  plane.style.setProperty("--column", index % columns);
  plane.style.setProperty("--row", Math.floor(index / columns));
  plane.querySelector("output").textContent = label;
  slider.setAttribute("aria-valuetext", label);
  document.body.style.setProperty("--at-" + plane.dataset.axis, (index + 0.5) / (Number(slider.max) + 1));
}

function goTo(axis, fraction) {
  const plane = planes.find((one) => one.dataset.axis === axis), slider = plane.querySelector("input");
  slider.value = Math.floor(fraction * (Number(slider.max) + 1));
  show(plane);
}

for (const plane of planes) {
  const slider = plane.querySelector("input");
  slider.addEventListener("input", () => show(plane));
  plane.addEventListener("click", (event) => {
    const view = event.target.closest(".view");
    if (!view) return;
    const box = view.getBoundingClientRect();
    goTo(plane.dataset.across, (event.clientX - box.left) / box.width);
    goTo(plane.dataset.up, 1 - (event.clientY - box.top) / box.height);
    slider.focus({ preventScroll: true });
  });
  show(plane);
}
