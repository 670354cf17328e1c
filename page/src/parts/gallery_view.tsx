/** The pictures that were painted, the newest first. */

import { useChanging } from "../changing";
import type { Gallery } from "../gallery";
import { type Picture, scaling } from "../pictures";

interface Props {
  gallery: Gallery;
  onOpen: (picture: Picture) => void;
}

export function GalleryView({ gallery, onOpen }: Props) {
  useChanging(gallery);
  return (
    <section class="gallery" aria-labelledby="gallery-title">
      <h2 id="gallery-title">Gallery</h2>
      {gallery.failure && (
        <p role="alert" class="failure">
          {gallery.failure}
        </p>
      )}
      {gallery.pictures.length === 0 ? (
        <p class="quiet">
          What is painted is kept here, in this browser. <a href="#">Paint something.</a>
        </p>
      ) : (
        <ul class="gallery-grid">
          {gallery.pictures.map((picture) => (
            <li key={picture.id}>
              <button type="button" class="frame" onClick={() => onOpen(picture)}>
                <img src={picture.url} alt={picture.alt} class={scaling(picture)} loading="lazy" />
              </button>
              <p class="caption">
                <span>{picture.alt}</span> <span class="seed">seed {picture.seed}</span>
              </p>
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}
