/** The pictures that were painted, kept in the browser: https://w3c.github.io/IndexedDB/ */

import { inWords } from "./api/client";
import { Changing } from "./changing";
import type { Picture } from "./pictures";

export const MAX_PICTURES = 200; // the oldest leave when there are more

const NAME = "unitok";
const STORE = "pictures";

type Stored = Omit<Picture, "url">;

export class Gallery extends Changing {
  /** The newest first. */
  pictures: Picture[] = [];
  /** Why pictures are not kept; "" if they are. */
  failure = "";
  private readonly opened = open();

  constructor() {
    super();
    this.opened.catch(() => undefined); // each use of it tells
  }

  /** Read what was kept. */
  async load(): Promise<void> {
    await this.attempt(async (database) => {
      const stored = (await done(store(database, "readonly").getAll())) as Stored[];
      const known = new Set(this.pictures.map((picture) => picture.id));
      const older = stored.filter((picture) => !known.has(picture.id)).map(withUrl);
      this.pictures = [...this.pictures, ...older].sort((a, b) => b.made - a.made);
    });
    this.changed();
  }

  /** Keep a picture. The oldest leave if there are too many. */
  async keep(picture: Picture): Promise<void> {
    this.pictures = [picture, ...this.pictures];
    this.changed();
    await this.attempt(async (database) => {
      const { url: _, ...stored } = picture;
      await done(store(database, "readwrite").put(stored));
    });
    for (const old of this.pictures.slice(MAX_PICTURES)) await this.remove(old);
  }

  /** Delete a picture. */
  async remove(picture: Picture): Promise<void> {
    this.pictures = this.pictures.filter((other) => other.id !== picture.id);
    this.changed();
    await this.attempt((database) => done(store(database, "readwrite").delete(picture.id)));
  }

  /** Whether a picture is kept. */
  has(picture: Picture): boolean {
    return this.pictures.some((other) => other.id === picture.id);
  }

  private async attempt(work: (database: IDBDatabase) => Promise<unknown>): Promise<void> {
    try {
      await work(await this.opened);
      this.failure = "";
    } catch (error) {
      this.failure = `This browser does not keep the pictures: ${inWords(error)}`;
      this.changed();
    }
  }
}

async function open(): Promise<IDBDatabase> {
  const request = indexedDB.open(NAME, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
  return await done(request);
}

function store(database: IDBDatabase, mode: IDBTransactionMode): IDBObjectStore {
  return database.transaction(STORE, mode).objectStore(STORE);
}

function done<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

function withUrl(stored: Stored): Picture {
  return { ...stored, url: URL.createObjectURL(stored.blob) };
}
