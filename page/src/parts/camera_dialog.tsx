/** Takes a picture with the camera. */

import { useEffect, useRef, useState } from "preact/hooks";
import { inWords } from "../api/client";
import { Icon } from "./icons";
import { Modal } from "./modal";

interface Props {
  onPicture: (picture: Blob) => void;
  onClose: () => void;
}

export function CameraDialog({ onPicture, onClose }: Props) {
  const video = useRef<HTMLVideoElement>(null);
  const [ready, setReady] = useState(false);
  const [failure, setFailure] = useState("");
  useEffect(() => watch(video.current as HTMLVideoElement, setFailure), []);
  const take = async () => onPicture(await frameOf(video.current as HTMLVideoElement));
  return (
    <Modal title="Take a picture" onClose={onClose}>
      {failure === "" ? (
        <video
          ref={video}
          class="camera"
          aria-label="What the camera sees"
          autoplay
          muted
          playsInline
          onPlaying={() => setReady(true)}
        />
      ) : (
        <p role="alert" class="failure">
          The camera cannot be used: {failure}
        </p>
      )}
      <div class="row end">
        <button type="button" class="strong" disabled={!ready} onClick={take}>
          <Icon name="camera" /> Take it
        </button>
      </div>
    </Modal>
  );
}

/** Show what the camera sees, until the function that this gives is called. */
function watch(video: HTMLVideoElement, onFailure: (failure: string) => void): () => void {
  let stream: MediaStream | null = null;
  let over = false;
  const end = () => {
    over = true;
    for (const track of stream?.getTracks() ?? []) track.stop();
  };
  const wanted = { video: { facingMode: "environment" } };
  navigator.mediaDevices.getUserMedia(wanted).then(
    (opened) => {
      stream = opened;
      video.srcObject = opened;
      if (over) end();
    },
    (error: unknown) => onFailure(inWords(error)),
  );
  return end;
}

async function frameOf(video: HTMLVideoElement): Promise<Blob> {
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  canvas.getContext("2d")?.drawImage(video, 0, 0);
  return await canvas.convertToBlob({ type: "image/png" });
}
