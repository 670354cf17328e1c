/** The part of a picture that is marked: painted on a canvas of the picture's size. */

import { Failure } from "./api/client";
import { context2d } from "./pictures";

export interface Box {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

export interface Point {
  x: number;
  y: number;
}

const COLOUR = "#e08a2e";
const MAX_UNDO = 30;
const HALF = 128; // of an alpha

export class Mask {
  private readonly context: CanvasRenderingContext2D;
  private readonly before: ImageData[] = [];

  constructor(readonly canvas: HTMLCanvasElement) {
    const context = canvas.getContext("2d", { willReadFrequently: true });
    if (context === null) throw new Failure("This browser cannot paint pictures.");
    this.context = context;
    context.lineCap = context.lineJoin = "round";
    context.strokeStyle = context.fillStyle = COLOUR;
  }

  /** Remember how it is, for `undo`. */
  remember(): void {
    this.before.push(this.pixels());
    if (this.before.length > MAX_UNDO) this.before.shift();
  }

  /** Go back to what was remembered last. */
  undo(): void {
    const last = this.before.pop();
    if (last) this.context.putImageData(last, 0, 0);
  }

  /** Mark a line, or take the marks off it. */
  line(from: Point, to: Point, width: number, erase: boolean): void {
    const context = this.context;
    context.globalCompositeOperation = erase ? "destination-out" : "source-over";
    context.lineWidth = width;
    context.beginPath();
    context.moveTo(from.x, from.y);
    context.lineTo(to.x, to.y);
    context.stroke();
    // A canvas need not draw a line of no length, which is what a click is.
    context.beginPath();
    context.arc(to.x, to.y, width / 2, 0, 2 * Math.PI);
    context.fill();
  }

  /** Mark a box. */
  box({ left, top, right, bottom }: Box): void {
    this.context.globalCompositeOperation = "source-over";
    this.context.fillRect(left, top, right - left, bottom - top);
  }

  /** Take all marks off. */
  clear(): void {
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  /** The share of the picture that is marked. */
  get share(): number {
    const { data } = this.pixels();
    let marked = 0;
    for (let i = 3; i < data.length; i += 4) if (data[i]! >= HALF) marked += 1;
    return marked / (data.length / 4);
  }

  /** A PNG that is transparent where the picture is marked, and opaque elsewhere. */
  async asPng(): Promise<Blob> {
    const image = this.pixels();
    for (let i = 3; i < image.data.length; i += 4) {
      const marked = image.data[i]! >= HALF;
      image.data.set([0, 0, 0, marked ? 0 : 255], i - 3);
    }
    const canvas = new OffscreenCanvas(image.width, image.height);
    context2d(canvas).putImageData(image, 0, 0);
    return await canvas.convertToBlob({ type: "image/png" });
  }

  private pixels(): ImageData {
    return this.context.getImageData(0, 0, this.canvas.width, this.canvas.height);
  }
}
