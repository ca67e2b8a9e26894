"use strict";
(async () => {
  const at = (id) => document.getElementById(id);
  const panel = at("viewer"), canvas = panel.querySelector("canvas"), slider = at("opacity").querySelector("input");
  const { axes, voxels } = JSON.parse(panel.dataset.grid), ofBody = !voxels.length; // else a loop, as x y t
  const [axial, coronal, sagittal] = ofBody ? ["axial", "coronal", "sagittal"] :
    [2, 1, 0].map((along) => axes.filter((_, axis) => axis !== along).join("-"));
  const VIEWS = { planes: 3, [axial]: 0, [coronal]: 1, [sagittal]: 2, "3D": 4 }; // NiiVue's numbers
  const NOTHING = 0, PAN = 3, CROSSHAIR = 8; // its modes of dragging
  const SWITCHES = {
    window: "dragging changes brightness and contrast (W)",
    ...(ofBody && { radiological: "the patient's left to the right (S)", cut: "cuts the head open in 3D (C)" }),
  };
  const CLEAR = 1 / 8; // of the error's range shows the image below instead
  const OFF = [2, 0, 0], CUT = [0.1, 180, 40]; // a plane that cuts the head in 3D: depth, azimuth, elevation
  const images = new Map(); // name -> NiiVue's image, with what the page tells of it
  const start = { image: "result", map: "none", other: "", view: "planes", window: false, radiological: false, cut: false };
  let state = { ...start }, active = 0, last, nv;

  async function unpacked(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  }

  function colormap({ name, low, colors }) {
    const parts = [1, 3, 5].map((first) => colors.map((color) => parseInt(color.slice(first, first + 2), 16)));
    const place = colors.map((_, i) => i / (colors.length - 1)), away = (at) => (low ? Math.abs(2 * at - 1) : at);
    const alpha = place.map((at) => (away(at) <= (low ? CLEAR : 0) ? 0 : 255)); // NiiVue knows no other alpha in maps
    nv.addColormap(name, { R: parts[0], G: parts[1], B: parts[2], A: alpha, I: place.map((at) => Math.round(255 * at)) });
  }

  async function embedded({ file, ...told }) {
    if (told.map) colormap(told);
    const look = { colormap: told.map ? told.name : "gray", cal_min: told.low, cal_max: told.high };
    const image = await niivue.NVImage.loadFromBase64({ base64: file, name: told.name + ".nii.gz", ...look });
    images.set(told.name, Object.assign(image, { told, robust_min: told.low, robust_max: told.high }));
  }

  async function add(file) { // one that the reader has on this computer
    const line = panel.querySelector(".refused");
    line.textContent = "";
    try {
      const image = await niivue.NVImage.loadFromFile({ file, name: file.name });
      images.set(file.name, Object.assign(image, { told: { name: file.name } }));
    } catch {
      line.textContent = `${file.name}: cannot be shown; drop a NIfTI file`;
      return;
    }
    choices();
    choose(file.name);
  }

  // What is shown

  function choose(name) {
    const before = images.get(state.image), now = images.get(name);
    if (before.told.high !== undefined && before.told.high === now.told.high) [now.cal_min, now.cal_max] = [before.cal_min, before.cal_max]; // one scale
    if (name !== state.image) state.other = state.image;
    state.image = name;
    show();
  }

  function show() {
    const map = images.get(state.map), mm = nv.volumes.length && nv.frac2mm(nv.scene.crosshairPos, 0, true);
    if (map) map.opacity = slider.value / 100;
    nv.volumes = [images.get(state.image), ...(map ? [map] : [])];
    nv.opts.isRadiologicalConvention = state.radiological;
    nv.opts.sliceType = VIEWS[state.view];
    const drag = state.window ? NOTHING : CROSSHAIR;
    nv.opts.mouseEventConfig = { leftButton: { primary: drag, withShift: PAN }, rightButton: NOTHING, centerButton: PAN };
    nv.opts.touchEventConfig = { singleTouch: drag, doubleTouch: NOTHING };
    nv.setVolume(nv.volumes[0]);
    if (mm) nv.scene.crosshairPos = nv.mm2frac(mm.slice(0, 3), 0, true);
    nv.setClipPlane(state.cut ? CUT : OFF);
    if (VIEWS[state.view] < 3) active = VIEWS[state.view];
    for (const button of panel.querySelectorAll("[data-key]")) {
      const value = state[button.dataset.key];
      button.setAttribute("aria-pressed", value === true || value === button.textContent);
    }
    at("opacity").style.visibility = map ? "visible" : "hidden";
    legend(map && map.told);
    read();
  }

  function legend(told) {
    const place = panel.querySelector(".legend");
    place.hidden = !told;
    if (!told) return;
    const bar = Object.assign(document.createElement("i"), { style: `background: linear-gradient(90deg, ${told.colors})` });
    const clear = told.low ? `; clear within ${(told.high * CLEAR).toPrecision(1)} of 0` : "";
    const unit = Object.assign(document.createElement("small"), { textContent: `${told.name}, ${told.unit}${clear}` });
    place.replaceChildren(told.ends[0], bar, told.ends[1], unit);
  }

  function read() { // place and values under the crosshair
    const mm = [...nv.frac2mm(nv.scene.crosshairPos, 0, true)];
    const values = [...images.values()].map((image) => {
      const value = image.getValue(...image.mm2vox(mm)), { name, map, low, high } = image.told;
      const beyond = Math.abs(value) >= 2.99 * high; // as far as the file tells values apart
      if (!map) return [name, high ? `${value.toFixed(high < 0.5 ? 4 : 2)}${beyond ? " or more" : ""}` : value.toPrecision(3)];
      return [name, `${low && value > 0 ? "+" : ""}${value.toFixed(3)}${beyond ? " or more" : ""}`];
    });
    const place = ofBody ? mm.slice(0, 3).map((one, i) => ["xyz"[i], `${Math.round(one)} mm`]) :
      voxels.map((row, i) => [axes[i], Math.round(row[0] * mm[0] + row[1] * mm[1] + row[2] * mm[2] + row[3])]); // as slices count
    panel.querySelector("output").replaceChildren(...[...place, ...values].map(([name, value]) => {
      const shown = document.createElement("span");
      shown.append(Object.assign(document.createElement("b"), { textContent: name }), ` ${value}`);
      return shown;
    }));
  }

  function reset() {
    for (const image of images.values()) [image.cal_min, image.cal_max] = [image.robust_min, image.robust_max];
    Object.assign(nv.scene, { pan2Dxyzmm: [0, 0, 0, 1], crosshairPos: [0.5, 0.5, 0.5], renderAzimuth: 110, renderElevation: 10 });
    state = { ...start, image: state.image };
    show();
  }

  // Buttons, keys, mouse and fingers

  function choices() {
    const names = [...images.keys()], maps = names.filter((name) => images.get(name).told.map);
    buttons("image", names.filter((name) => !maps.includes(name)), "image", choose);
    buttons("map", maps.length ? ["none", ...maps] : [], "map", over);
    at("opacity").hidden = !maps.length;
    buttons("view", Object.keys(VIEWS), "view", (view) => { state.view = view; show(); });
    buttons("switches", Object.keys(SWITCHES), null, toggle);
  }

  function buttons(id, names, key, act) {
    at(id).replaceChildren(...names.map((name) => {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: name });
      button.dataset.key = key || name;
      button.title = key ? "" : SWITCHES[name];
      button.addEventListener("click", () => act(name));
      return button;
    }));
  }

  const toggle = (name) => { state[name] = !state[name]; show(); };
  const over = (map = "none") => { state.map = state.map === map ? "none" : map; show(); };
  const first = (start) => { const name = [...images.keys()].find((one) => one.startsWith(start)); if (name) choose(name); };
  const step = (by) => nv.moveCrosshairInVox(...[[0, 0, by], [0, by, 0], [by, 0, 0]][active]);

  function swap() {
    const names = [...images.keys()].filter((name) => name !== "result" && !images.get(name).told.map);
    const name = state.image === "result" ? names.find((one) => one === state.other) || names[0] : "result";
    if (name) choose(name);
  }

  function zoom(factor) { // the crosshair stays where it is
    const pan = nv.scene.pan2Dxyzmm, now = Math.min(Math.max(pan[3] * factor, 1), 20), mm = nv.frac2mm(nv.scene.crosshairPos);
    for (let axis = 0; axis < 3; axis++) pan[axis] = now === 1 ? 0 : pan[axis] + (pan[3] - now) * mm[axis];
    pan[3] = now;
    nv.drawScene();
  }

  const KEYS = {
    ArrowUp: () => step(1), ArrowDown: () => step(-1), PageUp: () => step(10), PageDown: () => step(-10),
    x: swap, i: () => first("input"), r: () => first("result"), t: () => first("truth"),
    e: () => images.has("error") && over("error"), u: () => over(["uncertainty", "interval"].find((name) => images.has(name))),
    w: () => toggle("window"), ...(ofBody && { s: () => toggle("radiological"), c: () => toggle("cut") }),
    "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), "0": reset,
  };

  function press(event) {
    if (event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return;
    event.stopPropagation(); // NiiVue has keys of its own
    const act = KEYS[event.key.length > 1 ? event.key : event.key.toLowerCase()];
    if (act) { event.preventDefault(); act(); }
  }

  function pointed(event) {
    const box = canvas.getBoundingClientRect(), ratio = nv.uiData.dpr;
    const tile = nv.screenSlices[nv.tileIndex((event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio)];
    if (tile && tile.axCorSag < 3) active = tile.axCorSag;
    if (event.buttons & 2 || (event.buttons & 1 && state.window)) {
      brighten((last.y - event.clientY) / box.height, (event.clientX - last.x) / box.width);
    }
    last = { x: event.clientX, y: event.clientY };
  }

  function brighten(up, right) { // NiiVue's own way steps by whole units, and ours span from 0 to 1
    const image = nv.volumes[0], range = image.robust_max - image.robust_min;
    const middle = (image.cal_min + image.cal_max) / 2 - range * up;
    const half = Math.max((image.cal_max - image.cal_min) / 2 + range * right, range / 100);
    [image.cal_min, image.cal_max] = [middle - half, middle + half];
    nv.updateGLVolume();
  }

  function wheel(event) {
    if (!event.ctrlKey) return;
    event.preventDefault();
    event.stopPropagation();
    zoom(event.deltaY < 0 ? 1.1 : 1 / 1.1);
  }

  function listen() {
    panel.addEventListener("keydown", press, true);
    panel.addEventListener("keyup", (event) => event.stopPropagation(), true);
    panel.addEventListener("wheel", wheel, { capture: true, passive: false });
    canvas.addEventListener("pointermove", pointed);
    canvas.addEventListener("pointerdown", (event) => {
      last = { x: event.clientX, y: event.clientY };
      pointed(event);
      canvas.focus({ preventScroll: true });
    });
    const fingers = (event) => { nv.opts.dragMode = event.touches.length > 1 ? PAN : CROSSHAIR; }; // so that two of them zoom
    for (const kind of ["touchstart", "touchend"]) panel.addEventListener(kind, fingers, { capture: true, passive: true });
    slider.addEventListener("input", show);
    panel.addEventListener("dragover", (event) => event.preventDefault());
    panel.addEventListener("drop", (event) => { event.preventDefault(); [...event.dataTransfer.files].forEach(add); });
    panel.querySelector("[type=file]").addEventListener("change", (event) => [...event.target.files].forEach(add));
  }

  try {
    panel.hidden = false;
    for (const line of panel.querySelectorAll(".of-body")) line.hidden = !ofBody;
    if (!canvas.getContext("webgl2")) throw new Error("this browser offers no WebGL2");
    const code = await unpacked(at("niivue").textContent);
    document.head.append(Object.assign(document.createElement("script"), { textContent: code }));
    nv = panel.niivue = new niivue.Niivue({
      logLevel: "error", dragAndDropEnabled: false, dragMode: CROSSHAIR,
      multiplanarShowRender: 1, multiplanarLayout: 2, multiplanarPadPixels: 6, // always, in two rows
      crosshairColor: [0.49, 0.71, 0.9, 0.6], crosshairWidth: 0.3, show3Dcrosshair: true, clipPlaneColor: [0, 0, 0, 0],
      fontColor: [0.75, 0.79, 0.83, 1], fontMinPx: 11,
      showAllOrientationMarkers: ofBody, isOrientationTextVisible: ofBody,
    });
    await nv.attachToCanvas(canvas);
    for (const told of JSON.parse(at("volumes").textContent)) await embedded(told);
    nv.onLocationChange = read;
    listen();
    choices();
    if (images.get(location.hash.slice(1))?.told.map) start.map = location.hash.slice(1); // as report.html#uncertainty
    reset();
    document.querySelector(".still").open = false;
    window.addEventListener("beforeprint", () => { document.querySelector(".still").open = true; });
    panel.dataset.ready = "";
  } catch (error) {
    panel.hidden = true;
    at("no-viewer").textContent = `Only slices are shown: ${error.message}.`;
    at("no-viewer").hidden = false;
  }
})();
