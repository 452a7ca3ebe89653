// The picture with its mask or map on top, at the picture's own pixels, and the brush.
const STOPS = [[12, 7, 66], [93, 18, 110], [187, 55, 84], [249, 142, 9], [252, 255, 164]];

export class Board {
  constructor(canvas, frame) {
    Object.assign(this, { canvas, frame, tool: null, size: 16, paintClass: 1, opacity: 0.4, zoom: 1, changed: false, outlines: true });
    this.context = canvas.getContext("2d");
    this.layer = document.createElement("canvas");
    this.lines = document.createElement("canvas");
    this.map = null;
    this.onStroke = () => {};
    this.onClick = () => {};
    this.#listen();
  }

  loadImage(address) {
    return new Promise((resolve, reject) => {
      const image = new Image();
      image.onload = () => resolve(image);
      image.onerror = () => reject(new Error("the picture cannot be shown"));
      image.src = `${address}${address.includes("?") ? "&" : "?"}t=${Date.now()}`;
    });
  }

  show(image, labels, width, height) {
    Object.assign(this, { image, labels, width, height, changed: false, map: null });
    for (const canvas of [this.canvas, this.layer, this.lines]) Object.assign(canvas, { width, height });
    this.fit();
    this.#colour(0, 0, width, height);
    this.draw();
  }

  replace(labels) {
    this.labels = labels;
    this.changed = true;
    this.#colour(0, 0, this.width, this.height);
    this.draw();
  }

  // region: 1 where the mask gets the class id.
  fill(region, id) {
    for (let i = 0; i < region.length; i++) if (region[i]) this.labels[i] = id;
    this.replace(this.labels);
  }

  setOutlines(value) { this.outlines = value; this.draw(); }

  setOpacity(value) { this.opacity = value; this.draw(); }

  setZoom(value) { this.zoom = value; this.fit(); }

  setMap(image) {
    this.map = null;
    if (image) {
      const small = document.createElement("canvas");
      Object.assign(small, { width: image.naturalWidth, height: image.naturalHeight });
      const context = small.getContext("2d");
      context.drawImage(image, 0, 0);
      const pixels = context.getImageData(0, 0, small.width, small.height);
      for (let i = 0; i < pixels.data.length; i += 4) pixels.data.set(heat(pixels.data[i] / 255), i);
      context.putImageData(pixels, 0, 0);
      this.map = small;
    }
    this.draw();
  }

  fit() {
    if (!this.width) return;
    const scale = Math.min(this.frame.clientWidth / this.width, this.frame.clientHeight / this.height || Infinity);
    this.canvas.style.width = `${Math.max(1, this.width * scale * this.zoom)}px`;
    this.canvas.style.height = `${Math.max(1, this.height * scale * this.zoom)}px`;
  }

  draw() {
    if (!this.image) return;
    const { context } = this;
    context.globalAlpha = 1;
    context.drawImage(this.image, 0, 0, this.width, this.height);
    context.globalAlpha = this.opacity;
    context.drawImage(this.map ?? this.layer, 0, 0, this.width, this.height);
    context.globalAlpha = 1;
    if (this.outlines && !this.map) context.drawImage(this.lines, 0, 0, this.width, this.height);
  }

  // Thickness of an outline in the picture's pixels, about a pixel and a half on the screen.
  get #thickness() {
    return Math.max(1, Math.round((1.5 * this.width) / Math.max(1, this.frame.clientWidth)));
  }

  // Outlines of a part of the mask: the class's colour inside, black outside, so that they can be seen on any picture.
  #outline(x0, y0, x1, y1) {
    const { labels, width, height } = this;
    const context = this.lines.getContext("2d");
    const pixels = context.createImageData(x1 - x0, y1 - y0);
    const r = this.#thickness;
    const differs = (x, y, d, id) => (x >= d && labels[y * width + x - d] !== id) || (x + d < width && labels[y * width + x + d] !== id)
      || (y >= d && labels[(y - d) * width + x] !== id) || (y + d < height && labels[(y + d) * width + x] !== id);
    let at = 0;
    for (let y = y0; y < y1; y++) {
      for (let x = x0; x < x1; x++, at += 4) {
        const id = labels[y * width + x];
        if (!differs(x, y, 2 * r, id)) continue;
        const near = id > 0 && differs(x, y, r, id);
        const [red, green, blue] = id === 255 ? [255, 255, 255] : this.colours[id];
        pixels.data.set(near ? [red, green, blue, 255] : [0, 0, 0, 150], at);
      }
    }
    context.putImageData(pixels, x0, y0);
  }

  // Colours of a part of the mask; the background is clear, what is unsure is white.
  #colour(left, top, right, bottom) {
    const more = 2 * this.#thickness + 1;
    this.#outline(Math.max(0, left - more), Math.max(0, top - more), Math.min(this.width, right + more), Math.min(this.height, bottom + more));
    const [x0, y0] = [Math.max(0, left), Math.max(0, top)];
    const [x1, y1] = [Math.min(this.width, right), Math.min(this.height, bottom)];
    if (x1 <= x0 || y1 <= y0) return;
    const context = this.layer.getContext("2d");
    const pixels = context.createImageData(x1 - x0, y1 - y0);
    let at = 0;
    for (let y = y0; y < y1; y++) {
      for (let x = x0; x < x1; x++, at += 4) {
        const id = this.labels[y * this.width + x];
        if (id === 0) continue;
        const [r, g, b] = id === 255 ? [255, 255, 255] : this.colours[id];
        pixels.data.set([r, g, b, 255], at);
      }
    }
    context.putImageData(pixels, x0, y0);
  }

  #place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * this.width, ((event.clientY - box.top) / box.height) * this.height];
  }

  #stroke([x0, y0], [x1, y1]) {
    const [id, radius] = [this.tool === "eraser" ? 0 : this.paintClass, this.size / 2];
    const steps = Math.max(1, Math.ceil(Math.hypot(x1 - x0, y1 - y0) / Math.max(1, radius / 2)));
    for (let i = 0; i <= steps; i++) this.#disc(x0 + ((x1 - x0) * i) / steps, y0 + ((y1 - y0) * i) / steps, radius, id);
    const around = radius + 2;
    const part = [Math.min(x0, x1) - around, Math.min(y0, y1) - around, Math.max(x0, x1) + around, Math.max(y0, y1) + around];
    this.#colour(...part.map(Math.round));
    this.changed = true;
    this.draw();
  }

  #disc(cx, cy, radius, id) {
    for (let y = Math.max(0, Math.floor(cy - radius)); y <= Math.min(this.height - 1, Math.ceil(cy + radius)); y++) {
      for (let x = Math.max(0, Math.floor(cx - radius)); x <= Math.min(this.width - 1, Math.ceil(cx + radius)); x++) {
        if ((x + 0.5 - cx) ** 2 + (y + 0.5 - cy) ** 2 <= radius ** 2) this.labels[y * this.width + x] = id;
      }
    }
  }

  #listen() {
    let last = null;
    this.canvas.addEventListener("pointerdown", (event) => {
      if (!this.tool || !this.labels) return;
      if (this.tool.endsWith("region")) {
        const [x, y] = this.#place(event).map(Math.floor);
        this.onClick(Math.min(this.width - 1, x), Math.min(this.height - 1, y), this.tool === "take-region");
        return;
      }
      this.canvas.setPointerCapture(event.pointerId);
      last = this.#place(event);
      this.#stroke(last, last);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (last === null) return;
      const now = this.#place(event);
      this.#stroke(last, now);
      last = now;
    });
    const end = () => {
      if (last === null) return;
      last = null;
      this.onStroke();
    };
    this.canvas.addEventListener("pointerup", end);
    this.canvas.addEventListener("pointercancel", end);
  }
}

// Dark to bright in even steps, as in the report.
function heat(value) {
  const place = Math.min(1, Math.max(0, value)) * (STOPS.length - 1);
  const low = Math.min(STOPS.length - 2, Math.floor(place));
  return [...STOPS[low].map((c, i) => c + (STOPS[low + 1][i] - c) * (place - low)), 255];
}
