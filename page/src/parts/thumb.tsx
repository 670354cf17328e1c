/** A small picture. Where it is marked it stays bright, and the rest is dimmed. */

import { useBlobUrl } from "../blob_url";
import { type Picture, scaling } from "../pictures";

export function Thumb({ picture, mask = null }: { picture: Picture; mask?: Blob | null }) {
  const stays = useBlobUrl(mask);
  return (
    <span class="thumb">
      <img src={picture.url} alt={picture.alt} class={scaling(picture)} />
      {stays && <img src={stays} alt="" class={`stays ${scaling(picture)}`} />}
    </span>
  );
}
