"""Result records, their verification, and the leaderboard."""
