"use strict";
// A video is fetched only once it is to be played.
document.addEventListener("click", (event) => {
  const button = event.target.closest(".play");
  if (!button) return;
  const frame = button.closest(".frame");
  const video = document.createElement("video");
  const box = frame.getBoundingClientRect();
  video.src = frame.dataset.video;
  video.controls = video.loop = video.muted = video.playsInline = true;
  video.style.height = `${Math.max(box.height, Math.min(box.width * 0.6, 320))}px`;
  video.addEventListener("error", () => {
    const note = document.createElement("p");
    note.className = "missing";
    note.textContent = "The video is not beside this page.";
    video.replaceWith(note);
  });
  frame.replaceChildren(video);
  video.play().catch(() => {});
});
