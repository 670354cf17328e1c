/** Pictures: those that were drawn, and those that the person shows. */

import { Failure } from "./api/client";
import type { Recipe } from "./api/images";

export const MAX_SIDE = 1024; // pixels of a picture that is shown; larger ones are shrunk
export const MAX_FILE = 50_000_000; // bytes
const SMALL = 256; // pixels; smaller pictures are enlarged pixel by pixel

export interface Picture {
  id: string;
  blob: Blob;
  url: string;
  width: number;
  height: number;
  /** What it shows, in words. */
  alt: string;
  /** How it was made; null for a picture that the person shows. */
  recipe: Recipe | null;
  seed: number | null;
  /** Milliseconds since 1970. */
  made: number;
}

/** A picture that the server has made. */
export async function drawnPicture(blob: Blob, recipe: Recipe, seed: number): Promise<Picture> {
  return await pictureOf(blob, recipe.prompt, recipe, seed);
}

/** A picture that the person shows, as PNG and not too large. */
export async function shownPicture(file: Blob, name: string): Promise<Picture> {
  if (file.size > MAX_FILE) throw new Failure(`${name} is larger than ${MAX_FILE / 1e6} MB.`);
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Failure(`${name} is no picture that this browser can open.`);
  }
  const scale = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = new OffscreenCanvas(
    Math.max(1, Math.round(bitmap.width * scale)),
    Math.max(1, Math.round(bitmap.height * scale)),
  );
  const context = context2d(canvas);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  const blob = await canvas.convertToBlob({ type: "image/png" });
  return await pictureOf(blob, `the picture ${name}`, null, null);
}

/** How a picture is enlarged. */
export function scaling(picture: { width: number; height: number }): string {
  return Math.max(picture.width, picture.height) <= SMALL ? "pixels" : "";
}

/** The 2D context of a canvas. */
export function context2d(canvas: OffscreenCanvas): OffscreenCanvasRenderingContext2D {
  const context = canvas.getContext("2d");
  if (context === null) throw new Failure("This browser cannot paint pictures.");
  return context;
}

/** A picture as a data URL. */
export function asDataUrl(blob: Blob): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result as string);
    reader.onerror = () => reject(new Failure("The picture cannot be read any more."));
    reader.readAsDataURL(blob);
  });
}

/** The bytes of base64 as a picture. */
export function fromBase64(text: string, type: string): Blob {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Blob([bytes], { type });
}

/** A seed that nobody has chosen. */
export function randomSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0]! >>> 1;
}

/** The name that a file of a picture gets. */
export function fileName(picture: Picture): string {
  const words = picture.alt.toLowerCase().replace(/[^a-z0-9]+/g, "-");
  const stem = words.replace(/^-+|-+$/g, "").slice(0, 60) || "picture";
  return picture.seed === null ? `${stem}.png` : `${stem}-${picture.seed}.png`;
}

async function pictureOf(
  blob: Blob,
  alt: string,
  recipe: Recipe | null,
  seed: number | null,
): Promise<Picture> {
  const { width, height } = await sizeOf(blob);
  const url = URL.createObjectURL(blob);
  return { id: newId(), blob, url, width, height, alt, recipe, seed, made: Date.now() };
}

async function sizeOf(blob: Blob): Promise<{ width: number; height: number }> {
  const bitmap = await createImageBitmap(blob);
  const { width, height } = bitmap;
  bitmap.close();
  return { width, height };
}

/** An id that is given once. (`randomUUID` needs https, or this machine.) */
export function newId(): string {
  const parts = crypto.getRandomValues(new Uint32Array(4));
  return Array.from(parts, (part) => part.toString(36)).join("-");
}
