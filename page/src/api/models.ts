/** The models of the server, and how much it has to do. */

import { request } from "./client";

export interface ModelInfo {
  id: string;
  unitok: {
    picture_size: string;
    guidance: number;
    follows_instructions: boolean;
  };
}

/** All models. The first one is the server's default. */
export async function listModels(): Promise<ModelInfo[]> {
  const response = await request("v1/models");
  return ((await response.json()) as { data: ModelInfo[] }).data;
}

/** How many requests wait for their turn. */
export async function waitingRequests(signal: AbortSignal): Promise<number> {
  const response = await request("v1/queue", { signal });
  return ((await response.json()) as { waiting: number }).waiting;
}
